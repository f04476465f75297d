"""Processes that must not outlive the one that started them."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Looked up here: a child may do little between fork and exec.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Asks the system to end this process as SIGTERM does when its parent is gone, however that ended.

    For `preexec_fn`, of processes that are started by the main thread. Does nothing where there is no such thing.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

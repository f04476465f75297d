"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

# How a supervisor ends its servers; the second lets them wait for streams no more. Whoever signals a whole group of
# processes signals them too, and what comes to one from both is no second word of the operator's.
LEAVE, HURRY = signal.SIGUSR1, signal.SIGUSR2

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)

# Becomes the command once the system was asked to end it with its parent, unless that has ended meanwhile.
_ASK = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_SET_PARENT_DEATH_SIGNAL}, {int(signal.SIGTERM)})  # it outlasts exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Returns a command that is ended as by SIGTERM when the process is gone that starts it, however that ended.

    For the main thread to start. Where the system knows no such thing, it is the command as it was. What is to be
    asked for is asked by a program in between: a function that runs between fork and exec (`preexec_fn`) would need
    a fork proper, which waits for ever where threads of gRPC are at work.

    Args:
        command: an absolute path, and arguments.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _ASK, str(os.getpid()), *command]


def end_with(parent: int) -> bool:
    """Lets this process be ended as by SIGTERM when its parent is gone, on Linux.

    Args:
        parent: the id of what should be its parent.

    Returns:
        Whether it is; where it has ended, nobody will end this process.
    """
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))
    return os.getppid() == parent


def adopt_orphans() -> None:
    """Makes what descends from this process a child of it when its own parent ends, on Linux."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)

"""Entries that do not open or decode, and that work on many goes past."""

import logging
import time
from collections.abc import Callable

from strongroom_runtime.bounded import Bounded
from strongroom_runtime.etcd.members import shown
from strongroom_runtime.metrics import Metrics

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 600.0  # after which the log names one again
_MOST = 1_000


class Unreadable:
    """Counts them each time, and names each in the log every ten minutes.

    Args:
        service: whose they are.
        metrics: of the process.
        monotonic: seconds that never go back.
    """

    def __init__(
        self, service: str, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._monotonic = monotonic
        self._named: Bounded[bytes, float] = Bounded(_MOST)  # until when

    def note(self, key: bytes, error: BaseException) -> None:
        """Notes that one was gone past."""
        self._metrics.unreadable(self._service)
        now = self._monotonic()
        if now < self._named.get(key, 0.0):
            return
        self._named.keep(key, now + _AGAIN_SECONDS)
        log.error(
            "an entry in etcd cannot be read; it is passed over",
            extra={"key": shown(key), "error": type(error).__name__},
        )

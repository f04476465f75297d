"""Work that is done again and again: that it goes on, and what the log says of it where it goes wrong."""

import asyncio
import contextlib
import errno
import logging
from collections.abc import Container, Iterator

import grpc

from strongroom_runtime.errors import ServiceError

log = logging.getLogger(__name__)

# What becomes of work whose other side is away. (gRPC says the third of a call that has ended.)
_AWAY = (ServiceError, grpc.aio.AioRpcError, asyncio.InvalidStateError, OSError)


class Repeated:
    """After each turn comes another, whatever goes wrong: else nobody would do the work from then on, nor know of it.

    The log says once that something goes wrong, once more for each other kind of error, and once that all goes well.

    Args:
        work: what the log calls it.
        level: of what it says of errors that are to be expected; of all others it is ERROR.
    """

    def __init__(self, work: str, level: int = logging.INFO) -> None:
        self._work = work
        self._level = level
        self._failing: set[object] = set()
        self._said: set[str] = set()
        self._failures = 0

    @contextlib.contextmanager
    def turn(self, part: object = None) -> Iterator[None]:
        """Goes around one turn.

        Args:
            part: of the work, where it has several that go well or wrong each by itself.
        """
        try:
            yield
        except Exception as error:
            self.failed(error, part)
        else:
            self.goes_well(part)

    def failed(self, error: BaseException, part: object = None) -> None:
        """Notes that a turn went wrong."""
        self._failing.add(part)
        self._failures += 1
        kind = _kind(error)
        if kind in self._said:
            return
        self._said.add(kind)
        if isinstance(error, (*_AWAY, asyncio.CancelledError)):
            log.log(self._level, "work waits", extra={"work": self._work, "kind": kind})
        else:
            log.error("work failed", extra={"work": self._work, "error": kind})

    def goes_well(self, part: object = None) -> None:
        """Notes that a turn went well, or that one that lasts has begun."""
        if self._failing:
            self._failing.discard(part)
            self._look()

    def only(self, parts: Container[object]) -> None:
        """Forgets what went wrong with parts that there are no more."""
        if self._failing:
            self._failing = {part for part in self._failing if part in parts}
            self._look()

    def _look(self) -> None:
        if not self._failing:
            log.log(
                self._level, "work goes on", extra={"work": self._work, "failures": self._failures}
            )
            self._said.clear()
            self._failures = 0


def _kind(error: BaseException) -> str:
    """Returns what went wrong in a word: never the text, which may have anything in it."""
    if isinstance(error, ServiceError):
        return error.kind.value
    if isinstance(error, grpc.aio.AioRpcError):
        return str(error.code().name)
    name = type(error).__name__
    code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    return f"{name} {code}" if code else name

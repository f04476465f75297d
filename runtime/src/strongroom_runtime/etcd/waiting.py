"""Waiting for etcd while a process starts: it may be away, or without a leader, for as long as it likes."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.refusal import RefusedError
from strongroom_runtime.tasks import unless

T = TypeVar("T")

log = logging.getLogger(__name__)

# What a member was asked for while the leader died is answered by nobody: the first attempts are given up soon.
_ATTEMPT_SECONDS = (1.0, 2.0, 5.0)
_LONGEST_SECONDS = 10.0
_AGAIN_SECONDS = 0.1


class Waiting:
    """Does the first work of a process that needs etcd, again and again until it is done.

    The log says once that it waits, and once that it goes on. What waiting does not mend is raised.

    Args:
        stop: ends the waiting.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._waits = False

    async def until_done(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Returns what work gives that may be repeated, also where it was ended in the middle.

        Raises:
            EndedError: it is not to wait any longer.
            RefusedError: etcd answers, and will not take this process as it is configured.
            ServiceError: of another kind than UNAVAILABLE.
        """
        return await unless(self._stop, self._persist(work))

    async def _persist(self, work: Callable[[], Awaitable[T]]) -> T:
        patience = itertools.chain(_ATTEMPT_SECONDS, itertools.repeat(_LONGEST_SECONDS))
        while True:
            try:
                async with asyncio.timeout(next(patience)):
                    done = await work()
            except RefusedError:
                raise
            except ServiceError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                self._wait_for(_reason(error))
            except OSError as error:  # a name that is not known yet, or the time is over
                self._wait_for(str(error) or "it did not answer in time")
            else:
                if self._waits:
                    self._waits = False
                    log.info("etcd answers")
                return done
            await asyncio.sleep(_AGAIN_SECONDS)

    def _wait_for(self, reason: str) -> None:
        if not self._waits:
            self._waits = True
            log.warning("waiting for etcd", extra={"reason": reason})


def _reason(error: ServiceError) -> str:
    """Returns what went wrong, and what etcd or the connection said of it."""
    cause = error.__cause__
    details = cause.details() if isinstance(cause, grpc.aio.AioRpcError) else ""
    return f"{error.message}: {details}" if details else error.message

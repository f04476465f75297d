"""A few connections, opened when they are needed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from strongroom_dbcreds.drivers.base import NotReachedError
from strongroom_dbcreds.drivers.details import CALL_SECONDS, CONNECT_SECONDS, Limits
from strongroom_runtime.errors import Kind, ServiceError

T = TypeVar("T")

_SLOW = "the database did not answer in time"
# A connection that was used so lately is not asked whether it answers: one that the database closed is seen without
# that. What a firewall forgets, without telling, it forgets later.
_FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Idle(Generic[T]):
    """A connection that nobody uses: when it was opened, and since when it is idle."""

    connection: T
    opened: float
    since: float


class Pool(Generic[T]):
    """Lends connections, at most so many at a time.

    Args:
        limits: how many.
        connect: opens one.
        alive: whether one that was idle still answers.
        close: closes one; must not raise.
        told: what a client may be told of an error; None for one that is no database's.
        quiet: whether nothing has come from the other side of one, its end neither, without asking it; None where
            that cannot be seen.
    """

    def __init__(
        self,
        limits: Limits,
        connect: Callable[[], Awaitable[T]],
        alive: Callable[[T], Awaitable[bool]],
        close: Callable[[T], Awaitable[None]],
        told: Callable[[Exception, bool], ServiceError | None],
        quiet: Callable[[T], bool] | None = None,
    ) -> None:
        self._limits = limits
        self._connect = connect
        self._alive = alive
        self._quiet = quiet
        self._close = close
        self._told = told
        self._slots = asyncio.Semaphore(limits.most)
        self._idle: list[_Idle[T]] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[T]:
        """Lends a connection for one call.

        Raises:
            ServiceError: INVALID where the database refuses; NotReachedError where no connection could be opened;
                UNAVAILABLE where it hangs, or went away.
        """
        try:
            async with asyncio.timeout(CALL_SECONDS):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._slots.acquire()
                try:
                    async with self._borrowed() as connection:
                        yield connection
                finally:
                    self._slots.release()
        except TimeoutError:
            raise ServiceError(Kind.UNAVAILABLE, _SLOW) from None

    async def close(self) -> None:
        """Closes those that nobody uses; the others close when they come back."""
        self._closed = True
        while self._idle:
            await self._close(self._idle.pop().connection)

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[T]:
        connection, opened = await self._open()
        keep = False
        try:
            yield connection
            keep = True
        except Exception as error:
            told = self._told(error, True)
            keep = told is not None and told.kind is Kind.INVALID
            if told is None:
                raise
            raise told from None
        finally:
            if keep and not self._closed and len(self._idle) < self._limits.idle:
                self._idle.append(_Idle(connection, opened, time.monotonic()))
            else:
                await self._close(connection)

    async def _usable(self, idle: _Idle[T]) -> bool:
        """Returns whether a connection can be lent again: the database may have gone meanwhile."""
        now, lifetime = time.monotonic(), self._limits.lifetime
        if lifetime and now - idle.opened >= lifetime:
            return False
        quiet = self._quiet if now - idle.since < _FRESH_SECONDS else None
        if quiet is not None and quiet(idle.connection):
            return True
        return await self._alive(idle.connection)

    async def _open(self) -> tuple[T, float]:
        while self._idle:
            idle = self._idle.pop()
            if await self._usable(idle):
                return idle.connection, idle.opened
            await self._close(idle.connection)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect(), time.monotonic()
        except TimeoutError:
            # An OSError without a text, of which drivers could not tell anything.
            raise NotReachedError(_SLOW) from None
        except Exception as error:
            told = self._told(error, False)
            if told is None:
                raise
            if told.kind is Kind.UNAVAILABLE:
                raise NotReachedError(told.message) from None
            raise told from None

"""A few connections, opened when they are needed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from strongroom_dbcreds.drivers.base import NotReachedError
from strongroom_dbcreds.drivers.details import CALL_SECONDS, CONNECT_SECONDS, Limits
from strongroom_runtime.errors import Kind, ServiceError

T = TypeVar("T")

_SLOW = "the database did not answer in time"


class Pool(Generic[T]):
    """Lends connections, at most so many at a time.

    Args:
        limits: how many.
        connect: opens one.
        alive: whether one that was idle still answers.
        close: closes one; must not raise.
        told: what a client may be told of an error; None for one that is no database's.
    """

    def __init__(
        self,
        limits: Limits,
        connect: Callable[[], Awaitable[T]],
        alive: Callable[[T], Awaitable[bool]],
        close: Callable[[T], Awaitable[None]],
        told: Callable[[Exception, bool], ServiceError | None],
    ) -> None:
        self._limits = limits
        self._connect = connect
        self._alive = alive
        self._close = close
        self._told = told
        self._slots = asyncio.Semaphore(limits.most)
        self._idle: list[tuple[T, float]] = []
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
            await self._close(self._idle.pop()[0])

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
                self._idle.append((connection, opened))
            else:
                await self._close(connection)

    async def _open(self) -> tuple[T, float]:
        while self._idle:
            connection, opened = self._idle.pop()
            young = not self._limits.lifetime or time.monotonic() - opened < self._limits.lifetime
            # The database may have gone meanwhile.
            if young and await self._alive(connection):
                return connection, opened
            await self._close(connection)
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

"""Drivers that are open, one for each connection as it is written now."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from strongroom_dbcreds.drivers.base import Driver, Factory
from strongroom_dbcreds.records import Connection
from strongroom_dbcreds.storage import Named
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.repeated import Repeated

log = logging.getLogger(__name__)


# How soon what is open for a connection that is no more is closed here, where another replica was told.
_TEND_SECONDS = 5.0


@dataclass(slots=True)
class _Open:
    driver: Driver
    connection: Connection
    revision: int
    users: int = 0
    superseded: bool = False

    def serves(self, connection: Connection) -> bool:
        """Whether a driver that was made anew would be no other: a rotation that begins changes nothing of that."""
        before = self.connection
        return (before.plugin, before.generation, before.details) == (
            connection.plugin,
            connection.generation,
            connection.details,
        )


class Connections:
    """Opens drivers when they are needed, and closes those whose connection was written anew, reset or removed.

    Args:
        records: the connections.
        plugins: what makes drivers, by name.
    """

    def __init__(self, records: Named[Connection], plugins: Mapping[str, Factory]) -> None:
        self.records = records
        self._plugins = plugins
        self._open: dict[tuple[str, str], _Open] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def plugins(self) -> tuple[str, ...]:
        """The names of the drivers that there are."""
        return tuple(self._plugins)

    def make(self, connection: Connection) -> Driver:
        """Returns a driver that nobody else uses.

        Raises:
            ServiceError: INVALID.
        """
        factory = self._plugins.get(connection.plugin)
        if factory is None:
            raise invalid(f"plugin_name: unknown; there are {', '.join(self._plugins)}")
        return factory(connection)

    @contextlib.asynccontextmanager
    async def use(self, mount: str, name: str) -> AsyncIterator[Driver]:
        """Lends the driver of a connection.

        Raises:
            ServiceError: FAILED_PRECONDITION where the connection does not exist.
        """
        found = await self.records.get(mount, name)
        held = self._current((mount, name), found)
        held.users += 1
        try:
            yield held.driver
        finally:
            held.users -= 1
            self._close_unused(held)

    async def run(self) -> None:
        """Closes what no connection needs any more, again and again, until cancelled."""
        work = Repeated("the closing of unused connections")
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            with work.turn():
                await self.tend()

    async def tend(self) -> None:
        """Closes what is open for connections that were removed, or are written otherwise."""
        for key in list(self._open):
            self._supersede(key, await self.records.get(*key))
        await self._closed()

    async def close(self) -> None:
        """Closes everything."""
        while self._open:
            _, held = self._open.popitem()
            await _close(held.driver)
        await self._closed()

    def _current(self, key: tuple[str, str], found: tuple[Connection, int] | None) -> _Open:
        """Returns what serves a connection as it was read."""
        self._supersede(key, found)
        if found is None:
            raise ServiceError(
                Kind.FAILED_PRECONDITION, f"the connection {key[1]!r} does not exist"
            )
        if key not in self._open:
            self._open[key] = _Open(self.make(found[0]), *found)
        return self._open[key]

    def _supersede(self, key: tuple[str, str], found: tuple[Connection, int] | None) -> None:
        """Lends no more what was opened for a connection that is otherwise now."""
        held = self._open.get(key)
        # Of two reads that run beside each other, the earlier one may end second.
        if held is None or (found is not None and found[1] <= held.revision):
            return
        if found is not None and held.serves(found[0]):
            held.revision = found[1]
            return
        del self._open[key]
        held.superseded = True
        self._close_unused(held)

    def _close_unused(self, held: _Open) -> None:
        if held.superseded and not held.users:
            task = asyncio.create_task(_close(held.driver), name="close")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _closed(self) -> None:
        """Waits until what is being closed is."""
        await asyncio.gather(*self._closing)


async def _close(driver: Driver) -> None:
    try:
        await driver.close()
    except Exception as error:
        log.info("a connection did not close", extra={"error": type(error).__name__})

"""Drivers that are open, one for each connection as it is written now."""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from strongroom_dbcreds.drivers.base import Driver, Factory
from strongroom_dbcreds.records import Connection
from strongroom_dbcreds.storage import Named
from strongroom_runtime.errors import Kind, ServiceError, invalid

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    driver: Driver
    revision: int
    users: int = 0
    superseded: bool = False


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
        held = await self._current(mount, name)
        held.users += 1
        try:
            yield held.driver
        finally:
            held.users -= 1
            await self._close_unused(held)

    async def close(self) -> None:
        """Closes everything."""
        while self._open:
            _, held = self._open.popitem()
            await _close(held.driver)

    async def _current(self, mount: str, name: str) -> _Open:
        key = (mount, name)
        found = await self.records.get(mount, name)
        known = self._open.get(key)
        if known is not None and (found is None or found[1] != known.revision):
            del self._open[key]
            known.superseded = True
            await self._close_unused(known)
        if found is None:
            raise ServiceError(Kind.FAILED_PRECONDITION, f"the connection {name!r} does not exist")
        # Nothing is awaited from here on: of two who come together, the second finds what the first opened.
        held = self._open.get(key)
        if held is None or held.revision != found[1]:
            held = self._open[key] = _Open(self.make(found[0]), found[1])
        return held

    async def _close_unused(self, held: _Open) -> None:
        if held.superseded and not held.users:
            await _close(held.driver)


async def _close(driver: Driver) -> None:
    try:
        await driver.close()
    except Exception as error:
        log.info("a connection did not close", extra={"error": type(error).__name__})

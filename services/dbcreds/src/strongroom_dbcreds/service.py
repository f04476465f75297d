"""Builds the dbcreds service."""

from collections.abc import Mapping

from strongroom.dbcreds.v1 import connection_pb2, lease_pb2, role_pb2
from strongroom_dbcreds import storage
from strongroom_dbcreds.config import Config
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.drivers import PLUGINS
from strongroom_dbcreds.drivers.base import Factory
from strongroom_dbcreds.rpc.connections import ConnectionHandlers
from strongroom_dbcreds.rpc.lifecycle import LifecycleHandlers
from strongroom_dbcreds.rpc.roles import RoleHandlers
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.service import BackgroundTasks, Host


class DbcredsService:
    """The dbcreds service: connections, roles, users, leases."""

    def __init__(self, handlers: HandlerTable, connections: Connections) -> None:
        self.handlers = handlers
        self._connections = connections
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Begins to revoke what has ended."""

    async def stop(self) -> None:
        """Ends background work, and closes what is open to databases."""
        await self._tasks.stop()
        await self._connections.close()


def build(
    host: Host, config: Config | None = None, plugins: Mapping[str, Factory] = PLUGINS
) -> DbcredsService:
    """Returns the service over a store. `host.peers` has `auth`, which says whether tokens still stand."""
    config = config or Config()
    records = storage.connections(host.store, config.attempts)
    roles = storage.roles(host.store, config.attempts)
    connections = Connections(records, plugins)
    handlers = HandlerTable()
    for module, name, implementation in (
        (connection_pb2, "ConnectionService", ConnectionHandlers(connections)),
        (role_pb2, "RoleService", RoleHandlers(roles)),
        (lease_pb2, "LeaseLifecycleService", LifecycleHandlers(host.store, records, roles)),
    ):
        handlers.add(module.DESCRIPTOR.services_by_name[name], implementation)
    return DbcredsService(handlers, connections)

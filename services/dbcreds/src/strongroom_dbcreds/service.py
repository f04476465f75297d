"""Builds the dbcreds service."""

from collections.abc import Mapping

from strongroom.dbcreds.v1 import (
    connection_pb2,
    lease_pb2,
    passwords_pb2,
    quota_pb2,
    role_pb2,
    static_pb2,
)
from strongroom_dbcreds import storage
from strongroom_dbcreds.config import Config
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.credentials import Credentials
from strongroom_dbcreds.drivers import PLUGINS
from strongroom_dbcreds.drivers.base import Factory
from strongroom_dbcreds.leases.expiry import Expiry
from strongroom_dbcreds.leases.issue import Issuer
from strongroom_dbcreds.leases.quotas import Quotas
from strongroom_dbcreds.leases.renew import Renewer
from strongroom_dbcreds.leases.revoke import Revoker
from strongroom_dbcreds.leases.storage import Leases
from strongroom_dbcreds.leases.tokens import TokenLeases
from strongroom_dbcreds.policies import PasswordPolicies
from strongroom_dbcreds.rotation.rotate import Rotator
from strongroom_dbcreds.rotation.subjects import Roots, StaticRoles
from strongroom_dbcreds.rpc.connections import ConnectionHandlers
from strongroom_dbcreds.rpc.leases import LeaseHandlers
from strongroom_dbcreds.rpc.lifecycle import LifecycleHandlers
from strongroom_dbcreds.rpc.passwords import PasswordPolicyHandlers
from strongroom_dbcreds.rpc.quotas import LeaseQuotaHandlers
from strongroom_dbcreds.rpc.roles import RoleHandlers
from strongroom_dbcreds.rpc.static import StaticRoleHandlers
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.mount_marks import GoneMarks
from strongroom_runtime.service import BackgroundTasks, Host
from strongroom_runtime.shared_clock import SharedClock


class DbcredsService:
    """The dbcreds service: connections, roles, users, leases."""

    def __init__(
        self,
        handlers: HandlerTable,
        clock: SharedClock,
        issuer: Issuer,
        expiry: Expiry,
        rotator: Rotator,
        connections: Connections,
        marks: GoneMarks,
    ) -> None:
        self.handlers = handlers
        self.clock = clock
        self.issuer = issuer
        self.expiry = expiry
        self.rotator = rotator
        self.marks = marks
        self._connections = connections
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Finds out the time, and begins to revoke what has ended."""
        self._tasks.start(self.clock.run(), "lease-clock")
        self._tasks.start(self.expiry.run(), "lease-expiry")
        self._tasks.start(self.expiry.probe(), "lease-probe")
        self._tasks.start(self.rotator.run(), "rotation")
        self._tasks.start(self._connections.run(), "connections")
        self._tasks.start(self.marks.run(), "dbcreds-gone-marks")

    async def stop(self) -> None:
        """Ends background work, and closes what is open to databases."""
        await self._tasks.stop()
        await self.issuer.settle()
        await self._connections.close()
        self.clock.forget()


def build(
    host: Host, config: Config | None = None, plugins: Mapping[str, Factory] = PLUGINS
) -> DbcredsService:
    """Returns the service over a store. `host.peers` has `auth`, which says whether tokens still stand."""
    config, store = config or Config(), host.store
    records = storage.connections(store, config.attempts)
    roles = storage.roles(store, config.attempts)
    connections = Connections(records, plugins)
    clock, leases = SharedClock(store, host.clock, config.clock_seconds), Leases(store)
    quotas, policies = Quotas(store, leases), PasswordPolicies(store)
    credentials = Credentials(policies)
    static = StaticRoles(storage.static_roles(store, config.attempts), connections, credentials)
    roots = Roots(connections, credentials)
    rotator = Rotator(store, {storage.STATIC: static, storage.CONFIG: roots}, clock, config)
    revoker = Revoker(leases, roles, connections, clock, config, host.membership)
    issuer = Issuer(
        leases,
        roles,
        connections,
        credentials,
        quotas,
        revoker,
        host.peers["auth"],
        clock,
        config,
    )
    tokens = TokenLeases(host.peers["auth"])
    renewer = Renewer(leases, roles, connections, clock)
    drops = (static.records.drop, roles.drop, records.drop)
    handlers = HandlerTable(clock.ready)
    for module, name, implementation in (
        (connection_pb2, "ConnectionService", ConnectionHandlers(connections, rotator, clock)),
        (role_pb2, "RoleService", RoleHandlers(roles, records, issuer)),
        (static_pb2, "StaticRoleService", StaticRoleHandlers(static, rotator, clock)),
        (passwords_pb2, "PasswordPolicyService", PasswordPolicyHandlers(policies)),
        (lease_pb2, "LeaseService", LeaseHandlers(leases, tokens, renewer, revoker, clock)),
        (lease_pb2, "LeaseLifecycleService", LifecycleHandlers(leases, revoker, clock, drops)),
        (quota_pb2, "LeaseQuotaService", LeaseQuotaHandlers(quotas)),
    ):
        handlers.add(module.DESCRIPTOR.services_by_name[name], implementation)
    expiry = Expiry(leases, revoker, clock, config)

    async def drop(mount: str) -> None:
        for each in drops:
            await each(mount)

    async def has_leases(mount: str) -> bool:
        return bool(await leases.of_mount(mount))

    marks = GoneMarks(store, host.clock, drop, has_leases)
    return DbcredsService(handlers, clock, issuer, expiry, rotator, connections, marks)

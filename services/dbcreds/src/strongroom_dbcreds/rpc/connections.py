"""ConnectionService: the databases of a mount."""

from typing import Any

import msgspec

from strongroom.dbcreds.v1 import connection_pb2 as pb
from strongroom_dbcreds import credentials
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.domain import rotations as domain
from strongroom_dbcreds.domain import usernames
from strongroom_dbcreds.domain.rotations import Plan
from strongroom_dbcreds.domain.usernames import Known
from strongroom_dbcreds.drivers import urls
from strongroom_dbcreds.records import Connection
from strongroom_dbcreds.rotation.rotate import Rotator
from strongroom_dbcreds.rpc import bounds
from strongroom_dbcreds.rpc.static import plan
from strongroom_dbcreds.storage import CONFIG
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import check_right, check_total, mount_of, page
from strongroom_runtime.timestamps import rfc3339

# Of a connection's details, what is never shown.
_SECRETS = frozenset({"password", "private_key", "tls_certificate_key"})
_LOGIN = ("connection_url", "host", "port", "username", "password")

# What is shown where it was not given, as in OpenBao.
_DEFAULTS = {"postgresql-database-plugin": {"password_authentication": "password"}}


class ConnectionHandlers:
    """Answers requests to config/ and reset/."""

    def __init__(self, connections: Connections, rotator: Rotator, clock: Clock) -> None:
        self._connections = connections
        self._rotator = rotator
        self._clock = clock
        self._records = connections.records

    async def ListConnections(
        self, request: pb.ListConnectionsRequest, context: RequestContext
    ) -> pb.ListConnectionsResponse:
        names = await self._records.names(mount_of(context).uuid)
        return pb.ListConnectionsResponse(keys=page(names, request.after, request.limit))

    async def ReadConnection(
        self, request: pb.ReadConnectionRequest, context: RequestContext
    ) -> pb.ReadConnectionResponse:
        found = await self._records.get(mount_of(context).uuid, request.name)
        if found is None:
            raise not_found()
        return _message(found[0])

    async def WriteConnection(
        self, request: pb.WriteConnectionRequest, context: RequestContext
    ) -> pb.WriteConnectionResponse:
        if request.plugin_version:
            raise invalid("plugin_version: must be empty, since drivers are part of the product")

        written: list[Connection] = []

        async def change(before: Connection | None) -> Connection:
            check_right(context, before is not None)
            after = _changed(before, request)
            if before is not None and (request.details.password or _login(before) != _login(after)):
                domain.check_idle(before.account, self._clock.now())
            usernames.render(credentials.template_of(after), Known("token", "role", 0.0))
            driver = self._connections.make(after)
            try:
                if after.verify:
                    await driver.verify()
            except ServiceError as error:
                raise ServiceError(
                    Kind.INVALID, f"error creating database object: {error.message}"
                ) from None
            finally:
                await driver.close()
            written[:] = [after]
            return _planned(after, self._clock.now())

        await self._records.change(mount_of(context).uuid, request.name, change)
        return pb.WriteConnectionResponse(warnings=_warnings(written[0]))

    async def DeleteConnection(
        self, request: pb.DeleteConnectionRequest, context: RequestContext
    ) -> pb.DeleteConnectionResponse:
        await self._rotator.remove(CONFIG, mount_of(context).uuid, request.name)
        await self._connections.tend()
        return pb.DeleteConnectionResponse()

    async def ResetConnection(
        self, request: pb.ResetConnectionRequest, context: RequestContext
    ) -> pb.ResetConnectionResponse:
        async def change(before: Connection | None) -> Connection:
            if before is None:
                raise invalid("name: no such connection")
            # Replicas close what they opened for another revision of the record.
            return msgspec.structs.replace(before, generation=before.generation + 1)

        await self._records.change(mount_of(context).uuid, request.name, change)
        await self._connections.tend()
        return pb.ResetConnectionResponse()


def _changed(before: Connection | None, request: pb.WriteConnectionRequest) -> Connection:
    """Returns a connection with what a request gives.

    Raises:
        ServiceError: INVALID.
    """
    if before is None and not request.plugin_name:
        raise invalid("plugin_name: must be given for a new connection")
    details = _given(request.details)
    bounds.check_details(details)
    after = before or Connection(request.plugin_name)
    changes: dict[str, Any] = {"details": {**after.details, **details}}
    if request.HasField("plugin_name"):
        changes["plugin"] = request.plugin_name
    if request.HasField("allowed_roles"):
        check_total("allowed_roles", request.allowed_roles.values, bounds.MAX_LIST)
        changes["allowed_roles"] = tuple(request.allowed_roles.values)
    if request.HasField("root_rotation_statements"):
        changes["root_statements"] = bounds.statements_of(
            "root_rotation_statements", request.root_rotation_statements.values
        )
    if request.HasField("password_policy"):
        changes["password_policy"] = request.password_policy
    if request.HasField("disable_automated_rotation"):
        changes["automated"] = not request.disable_automated_rotation
    changes["plan"] = plan(after.plan, request)
    if request.details.password:
        # Whoever gives the password knows it better than a rotation that was left half-way.
        changes["account"] = msgspec.structs.replace(after.account, pending=None, claim="")
    # As in Vault, every write is verified unless it says otherwise itself.
    changes["verify"] = request.verify_connection if request.HasField("verify_connection") else True
    return msgspec.structs.replace(after, **changes)


def _login(connection: Connection) -> list[Any]:
    """Returns who logs in where: a rotation that is under way is of that."""
    return [connection.plugin, *(connection.details.get(name) for name in _LOGIN)]


def _planned(connection: Connection, now: float) -> Connection:
    """Returns a connection whose rotation is planned as it says now."""
    known = connection.plan if connection.automated else Plan()
    return msgspec.structs.replace(
        connection, account=domain.planned(connection.account, known, now)
    )


def _warnings(connection: Connection) -> list[str]:
    try:
        credentials.check_rotatable(connection)
    except ServiceError as error:
        return [error.message]
    return []


def _given(details: pb.ConnectionDetails) -> dict[str, Any]:
    return {field.name: value for field, value in details.ListFields()}


def _message(connection: Connection) -> pb.ReadConnectionResponse:
    account = connection.account
    shown: dict[str, Any] = dict(_DEFAULTS.get(connection.plugin, {}))
    shown |= {n: v for n, v in connection.details.items() if n not in _SECRETS}
    if "connection_url" in shown:
        shown["connection_url"] = urls.masked(shown["connection_url"])
    return pb.ReadConnectionResponse(
        plugin_name=connection.plugin,
        allowed_roles=connection.allowed_roles,
        connection_details=pb.ConnectionDetails(**shown),
        password_policy=connection.password_policy,
        root_credentials_rotate_statements=connection.root_statements,
        verify_connection=connection.verify,
        rotation_period=connection.plan.period,
        rotation_schedule=connection.plan.schedule,
        rotation_window=connection.plan.window,
        disable_automated_rotation=not connection.automated,
        last_vault_rotation=rfc3339(account.rotated) if account.rotated else None,
        rotation_error=account.error or None,
    )

"""ConnectionService: the databases of a mount."""

from typing import Any

import msgspec

from strongroom.dbcreds.v1 import connection_pb2 as pb
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.records import Connection
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import check_right, mount_of, page

# Of a connection's details, what is never shown.
_SECRETS = frozenset({"password", "private_key", "tls_certificate_key"})


class ConnectionHandlers:
    """Answers requests to config/ and reset/."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
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

        async def change(before: Connection | None) -> Connection:
            check_right(context, before is not None)
            after = _changed(before, request)
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
            return after

        await self._records.change(mount_of(context).uuid, request.name, change)
        return pb.WriteConnectionResponse()

    async def DeleteConnection(
        self, request: pb.DeleteConnectionRequest, context: RequestContext
    ) -> pb.DeleteConnectionResponse:
        await self._records.delete(mount_of(context).uuid, request.name)
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
        return pb.ResetConnectionResponse()


def _changed(before: Connection | None, request: pb.WriteConnectionRequest) -> Connection:
    """Returns a connection with what a request gives.

    Raises:
        ServiceError: INVALID.
    """
    if before is None and not request.plugin_name:
        raise invalid("plugin_name: must be given for a new connection")
    after = before or Connection(request.plugin_name)
    changes: dict[str, Any] = {"details": {**after.details, **_given(request.details)}}
    if request.HasField("plugin_name"):
        changes["plugin"] = request.plugin_name
    if request.HasField("allowed_roles"):
        changes["allowed_roles"] = tuple(request.allowed_roles.values)
    if request.HasField("root_rotation_statements"):
        changes["root_statements"] = tuple(request.root_rotation_statements.values)
    if request.HasField("password_policy"):
        changes["password_policy"] = request.password_policy
    # As in Vault, every write is verified unless it says otherwise itself.
    changes["verify"] = request.verify_connection if request.HasField("verify_connection") else True
    return msgspec.structs.replace(after, **changes)


def _given(details: pb.ConnectionDetails) -> dict[str, Any]:
    return {field.name: value for field, value in details.ListFields()}


def _message(connection: Connection) -> pb.ReadConnectionResponse:
    shown = {n: v for n, v in connection.details.items() if n not in _SECRETS}
    return pb.ReadConnectionResponse(
        plugin_name=connection.plugin,
        allowed_roles=connection.allowed_roles,
        connection_details=pb.ConnectionDetails(**shown),
        password_policy=connection.password_policy,
        root_credentials_rotate_statements=connection.root_statements,
        verify_connection=connection.verify,
    )

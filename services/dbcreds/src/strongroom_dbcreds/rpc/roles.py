"""RoleService: roles, and the users that are made by them."""

from typing import Any

import msgspec

from strongroom.dbcreds.v1 import role_pb2 as pb
from strongroom_dbcreds import credentials
from strongroom_dbcreds.leases.issue import Issuer
from strongroom_dbcreds.records import Connection, Role
from strongroom_dbcreds.rpc import bounds
from strongroom_dbcreds.storage import Named
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import denied, invalid, not_found
from strongroom_runtime.requests import check_right, mount_of, page

_STATEMENTS = {
    "creation_statements": "creation",
    "revocation_statements": "revocation",
    "rollback_statements": "rollback",
    "renew_statements": "renewal",
}
_SPANS = {
    "default_ttl": "default_ttl",
    "max_ttl": "max_ttl",
    "revocation_timeout": "revocation_timeout",
    "revocation_retry_interval": "retry_interval",
    "irrevocable_after": "irrevocable_after",
}
_SCALARS = {"db_name": "database", "credential_type": "credential_type", **_SPANS}


class RoleHandlers:
    """Answers requests to roles/ and creds/."""

    def __init__(self, roles: Named[Role], connections: Named[Connection], issuer: Issuer) -> None:
        self._roles = roles
        self._connections = connections
        self._issuer = issuer

    async def ListRoles(
        self, request: pb.ListRolesRequest, context: RequestContext
    ) -> pb.ListRolesResponse:
        names = await self._roles.names(mount_of(context).uuid)
        return pb.ListRolesResponse(keys=page(names, request.after, request.limit))

    async def ReadRole(
        self, request: pb.ReadRoleRequest, context: RequestContext
    ) -> pb.ReadRoleResponse:
        found = await self._roles.get(mount_of(context).uuid, request.name)
        if found is None:
            raise not_found()
        role, response = found[0], pb.ReadRoleResponse()
        for field, attribute in _STATEMENTS.items():
            getattr(response, field).extend(getattr(role, attribute))
        for field, attribute in _SCALARS.items():
            setattr(response, field, getattr(role, attribute))
        response.credential_config.update(credentials.shown(role.credential_config))
        return response

    async def WriteRole(
        self, request: pb.WriteRoleRequest, context: RequestContext
    ) -> pb.WriteRoleResponse:
        mount = mount_of(context)
        written: list[Role] = []

        async def change(before: Role | None) -> Role:
            check_right(context, before is not None)
            after = _changed(before, request)
            # A role may be written before its connection; what is asked of it then is told when it is used.
            found = await self._connections.get(mount.uuid, after.database)
            if found is not None:
                credentials.check_possible(found[0], after.credential_type)
            written[:] = [after]
            return after

        await self._roles.change(mount.uuid, request.name, change)
        return pb.WriteRoleResponse(warnings=_warnings(written[0], mount))

    async def DeleteRole(
        self, request: pb.DeleteRoleRequest, context: RequestContext
    ) -> pb.DeleteRoleResponse:
        await self._roles.delete(mount_of(context).uuid, request.name)
        return pb.DeleteRoleResponse()

    async def CreateCredentials(
        self, request: pb.CreateCredentialsRequest, context: RequestContext
    ) -> pb.CreateCredentialsResponse:
        if context.token is None:
            raise denied()
        issued = await self._issuer.issue(mount_of(context), request.name, context.token)
        return pb.CreateCredentialsResponse(
            username=issued.made.username,
            **issued.made.secrets,
            lease_id=issued.lease.id,
            lease_duration=issued.ttl,
            renewable=True,
            warnings=issued.warnings,
        )


def _changed(before: Role | None, request: pb.WriteRoleRequest) -> Role:
    """Returns a role with what a request gives.

    Raises:
        ServiceError: INVALID.
    """
    changes: dict[str, Any] = {
        attribute: getattr(request, field)
        for field, attribute in _SCALARS.items()
        if request.HasField(field)  # type: ignore[arg-type]
    }
    for field, attribute in _STATEMENTS.items():
        if request.HasField(field):  # type: ignore[arg-type]
            changes[attribute] = bounds.statements_of(field, getattr(request, field).values)
    if request.credential_config:
        changes["credential_config"] = bounds.settings_of(
            "credential_config", request.credential_config
        )
    after = msgspec.structs.replace(before or Role(""), **changes)
    if not after.database:
        raise invalid("db_name: must name a connection")
    credentials.check(after.credential_type, after.credential_config)
    for field, attribute in _SPANS.items():
        if getattr(after, attribute) < 0:
            raise invalid(f"{field}: must not be negative")
    if after.max_ttl and after.default_ttl > after.max_ttl:
        raise invalid("default_ttl: must not be longer than max_ttl")
    return after


def _warnings(role: Role, mount: MountContext) -> list[str]:
    longest = mount.max_lease_ttl
    return [
        f"{name} is longer than the {longest}s that the mount allows; leases end after those"
        for name in ("default_ttl", "max_ttl")
        if getattr(role, name) > longest
    ]

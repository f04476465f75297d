"""StaticRoleService: users whose passwords are changed again and again."""

import contextlib
from typing import Any

import msgspec

from strongroom.dbcreds.v1 import static_pb2 as pb
from strongroom_dbcreds import credentials
from strongroom_dbcreds.domain import rotations as domain
from strongroom_dbcreds.domain.rotations import Plan
from strongroom_dbcreds.records import StaticRole
from strongroom_dbcreds.rotation.rotate import Rotator
from strongroom_dbcreds.rotation.subjects import StaticRoles
from strongroom_dbcreds.rpc import bounds
from strongroom_dbcreds.storage import CONFIG, STATIC
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import check_length, check_right, mount_of, page
from strongroom_runtime.timestamps import rfc3339

_FIXED = {"username": "username", "db_name": "database"}


class _OthersWroteItError(Exception):
    """A role is not the one that was made any more."""


class StaticRoleHandlers:
    """Answers requests to static-roles/, static-creds/, rotate-role/ and rotate-root/."""

    def __init__(self, roles: StaticRoles, rotator: Rotator, clock: Clock) -> None:
        self._roles = roles
        self._records = roles.records
        self._rotator = rotator
        self._clock = clock

    async def ListStaticRoles(
        self, request: pb.ListStaticRolesRequest, context: RequestContext
    ) -> pb.ListStaticRolesResponse:
        names = await self._records.names(mount_of(context).uuid)
        return pb.ListStaticRolesResponse(keys=page(names, request.after, request.limit))

    async def ReadStaticRole(
        self, request: pb.ReadStaticRoleRequest, context: RequestContext
    ) -> pb.ReadStaticRoleResponse:
        found = await self._records.get(mount_of(context).uuid, request.name)
        if found is None:
            raise not_found()
        role, account = found[0], found[0].account
        return pb.ReadStaticRoleResponse(
            username=role.username,
            db_name=role.database,
            rotation_statements=role.statements,
            credential_type=role.credential_type,
            credential_config=role.credential_config,
            last_vault_rotation=rfc3339(account.rotated) if account.rotated else None,
            skip_import_rotation=role.skip_import,
            self_managed=role.self_managed,
            rotation_error=account.error or None,
            rotation_attempts=account.attempts or None,
            **_planned(role.plan),
        )

    async def WriteStaticRole(
        self, request: pb.WriteStaticRoleRequest, context: RequestContext
    ) -> pb.WriteStaticRoleResponse:
        mount, made = mount_of(context).uuid, list[StaticRole]()
        begun = self._clock.now()

        async def change(before: StaticRole | None) -> StaticRole:
            made.clear()
            check_right(context, before is not None)
            if before is not None and request.self_managed_password:
                domain.check_idle(before.account, self._clock.now())
            after = _changed(before, request)
            await self._roles.connection(mount, request.name, after)
            account = domain.planned(after.account, after.plan, begun)
            if not after.skip_import:
                # Should this process die now, another one does it.
                account = domain.imported(account, begun)
            after = msgspec.structs.replace(after, account=account)
            if before is None:
                made.append(after)
            return after

        await self._records.change(mount, request.name, change)
        if made and not request.skip_import_rotation:
            await self._import(mount, request.name, made[0], begun)
        return pb.WriteStaticRoleResponse()

    async def DeleteStaticRole(
        self, request: pb.DeleteStaticRoleRequest, context: RequestContext
    ) -> pb.DeleteStaticRoleResponse:
        await self._rotator.remove(STATIC, mount_of(context).uuid, request.name)
        return pb.DeleteStaticRoleResponse()

    async def ReadStaticCredentials(
        self, request: pb.ReadStaticCredentialsRequest, context: RequestContext
    ) -> pb.ReadStaticCredentialsResponse:
        mount = mount_of(context).uuid
        role = await self._known(mount, request.name)
        await self._roles.connection(mount, request.name, role)
        account = role.account
        if account.pending and not account.attempts and not account.claimed(self._clock.now()):
            # Left half-way by a replica that died: which of the two the database has is found out first.
            with contextlib.suppress(ServiceError):
                await self._rotator.rotate(STATIC, mount, request.name)
            role = await self._known(mount, request.name)
        account = role.account
        left = max(0, int(account.planned - self._clock.now())) if account.planned else 0
        return pb.ReadStaticCredentialsResponse(
            username=role.username,
            last_vault_rotation=rfc3339(account.rotated) if account.rotated else None,
            ttl=left,
            password=account.current.get("password"),
            rsa_private_key=account.current.get("rsa_private_key"),
            **_planned(role.plan),
        )

    async def RotateRole(
        self, request: pb.RotateRoleRequest, context: RequestContext
    ) -> pb.RotateRoleResponse:
        await self._rotator.rotate(STATIC, mount_of(context).uuid, request.name)
        return pb.RotateRoleResponse()

    async def RotateRoot(
        self, request: pb.RotateRootRequest, context: RequestContext
    ) -> pb.RotateRootResponse:
        await self._rotator.rotate(CONFIG, mount_of(context).uuid, request.name)
        return pb.RotateRootResponse()

    async def _known(self, mount: str, name: str) -> StaticRole:
        found = await self._records.get(mount, name)
        if found is None:
            raise self._roles.unknown(name)
        return found[0]

    async def _import(self, mount: str, name: str, made: StaticRole, since: float) -> None:
        """Changes the password of a new role; takes the role back where the database refuses."""

        def check(record: StaticRole) -> None:
            if not _same(record, made) or record.account.claimed(self._clock.now()):
                raise _OthersWroteItError

        try:
            await self._rotator.rotate(STATIC, mount, name, since)
        except ServiceError as error:
            if error.kind is Kind.INVALID:
                # What others made of it meanwhile may have a password that is known nowhere else.
                with contextlib.suppress(_OthersWroteItError):
                    await self._records.delete(mount, name, check)
                raise
            raise ServiceError(
                error.kind, f"the role is written, and is rotated later: {error.message}"
            ) from None


def _same(record: StaticRole, made: StaticRole) -> bool:
    """Returns whether a role is as it was made, whatever attempts there were to change its password."""
    return record.account.current == made.account.current and (
        msgspec.structs.replace(record, account=made.account) == made
    )


def plan(before: Plan, request: Any) -> Plan:
    """Returns a plan with what a request gives of it; a period and a schedule take the place of each other.

    Raises:
        ServiceError: INVALID.
    """
    changes: dict[str, Any] = {
        name: getattr(request, f"rotation_{name}")
        for name in ("period", "schedule", "window")
        if request.HasField(f"rotation_{name}")
    }
    if changes.get("period") and "schedule" not in changes:
        changes |= {"schedule": "", "window": changes.get("window", 0)}
    elif changes.get("schedule") and "period" not in changes:
        changes["period"] = 0
    after = msgspec.structs.replace(before, **changes)
    if after.period < 0 or after.window < 0:
        raise invalid("rotation_period and rotation_window: must not be negative")
    after.check()
    return after


def _changed(before: StaticRole | None, request: pb.WriteStaticRoleRequest) -> StaticRole:
    changes: dict[str, Any] = {}
    for field in ("username", "self_managed_password"):
        check_length(field, getattr(request, field), bounds.MAX_DETAIL)
    for field, attribute in _FIXED.items():
        value = getattr(request, field)
        if before is not None and value and value != getattr(before, attribute):
            raise invalid(f"{field}: cannot be changed; remove the role and write a new one")
        if before is None and not value:
            raise invalid(f"{field}: must be given for a new role")
        if value:
            changes[attribute] = value
    after = msgspec.structs.replace(before or StaticRole("", ""), **changes)
    changes = {"plan": plan(after.plan, request)}
    if request.HasField("rotation_statements"):
        changes["statements"] = bounds.statements_of(
            "rotation_statements", request.rotation_statements.values
        )
    if request.HasField("credential_type"):
        changes["credential_type"] = request.credential_type
    if request.credential_config:
        changes["credential_config"] = bounds.settings_of(
            "credential_config", request.credential_config
        )
    if request.HasField("skip_import_rotation"):
        changes["skip_import"] = request.skip_import_rotation
    if request.self_managed_password:
        known = {"password": request.self_managed_password}
        changes["self_managed"] = True
        changes["account"] = msgspec.structs.replace(after.account, current=known, pending=None)
    after = msgspec.structs.replace(after, **changes)
    credentials.check(after.credential_type, after.credential_config, credentials.STATIC_TYPES)
    if before is not None and before.credential_type != after.credential_type:
        raise invalid("credential_type: cannot be changed; remove the role and write a new one")
    if after.self_managed and after.credential_type != "password":
        raise invalid("self_managed_password: needs credential_type password")
    if not after.plan.period and not after.plan.schedule:
        raise invalid("rotation_period or rotation_schedule: one must be given")
    return after


def _planned(known: Plan) -> dict[str, Any]:
    return {
        f"rotation_{name}": getattr(known, name) or None
        for name in ("period", "schedule", "window")
    }

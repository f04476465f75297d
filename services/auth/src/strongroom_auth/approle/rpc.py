"""AppRoleService: the contract to and from roles."""

import uuid
from collections.abc import Callable

import msgspec

from strongroom.auth.v1 import approle_pb2 as pb
from strongroom_auth import settings
from strongroom_auth.approle import messages
from strongroom_auth.approle.logins import METHOD, Logins, new_secret_id
from strongroom_auth.approle.roles import Role, Roles, SecretId, hash_of, new_role
from strongroom_auth.tokens import bounds
from strongroom_auth.tokens.messages import auth_message
from strongroom_auth.tokens.records import Token
from strongroom_auth.tokens.tokens import RenewalRule, Tokens
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import check_length, check_right, mount_of, page


class AppRoleHandlers:
    """Answers requests to approle mounts. Role names are in lower case."""

    def __init__(self, roles: Roles, logins: Logins, tokens: Tokens) -> None:
        self._roles = roles
        self._logins = logins
        self._tokens = tokens
        tokens.renewers[METHOD] = self._renewal

    async def ListRoles(
        self, request: pb.ListRolesRequest, context: RequestContext
    ) -> pb.ListRolesResponse:
        names = await self._roles.names(mount_of(context).uuid)
        return pb.ListRolesResponse(keys=page(names, request.after, request.limit))

    async def ReadRole(
        self, request: pb.ReadRoleRequest, context: RequestContext
    ) -> pb.ReadRoleResponse:
        _, role = await self._role(request.role_name, context)
        return pb.ReadRoleResponse(role=messages.role_message(role))

    async def WriteRole(
        self, request: pb.WriteRoleRequest, context: RequestContext
    ) -> pb.WriteRoleResponse:
        name = _clean(request.role_name)

        async def change(before: Role | None) -> Role:
            check_right(context, before is not None)
            if before is None:
                bounds.check_new_name("role_name", name)
            role = before or new_role()
            local = request.role.local_secret_ids
            if (
                before
                and request.role.HasField("local_secret_ids")
                and local != role.local_secret_ids
            ):
                raise invalid("local_secret_ids can only be modified during role creation")
            if request.role_id:
                check_length("role_id", request.role_id, bounds.MAX_ROLE_ID_CHARACTERS)
                role = msgspec.structs.replace(role, role_id=request.role_id)
            return messages.changed(role, request.role)

        await self._roles.change(mount_of(context).uuid, name, change)
        return pb.WriteRoleResponse()

    async def DeleteRole(
        self, request: pb.DeleteRoleRequest, context: RequestContext
    ) -> pb.DeleteRoleResponse:
        await self._roles.delete(mount_of(context).uuid, _clean(request.role_name))
        return pb.DeleteRoleResponse()

    async def ReadRoleId(
        self, request: pb.ReadRoleIdRequest, context: RequestContext
    ) -> pb.ReadRoleIdResponse:
        _, role = await self._role(request.role_name, context)
        return pb.ReadRoleIdResponse(role_id=role.role_id)

    async def WriteRoleId(
        self, request: pb.WriteRoleIdRequest, context: RequestContext
    ) -> pb.WriteRoleIdResponse:
        if not request.role_id:
            raise invalid("missing role_id")
        check_length("role_id", request.role_id, bounds.MAX_ROLE_ID_CHARACTERS)
        await self._update(
            request.role_name,
            context,
            lambda role: msgspec.structs.replace(role, role_id=request.role_id),
        )
        return pb.WriteRoleIdResponse()

    async def CreateSecretId(
        self, request: pb.CreateSecretIdRequest, context: RequestContext
    ) -> pb.CreateSecretIdResponse:
        text = str(uuid.uuid4())
        secret = await self._add(request.role_name, text, request.parameters, context)
        return pb.CreateSecretIdResponse(secret=messages.secret_message(text, secret))

    async def CreateCustomSecretId(
        self, request: pb.CreateCustomSecretIdRequest, context: RequestContext
    ) -> pb.CreateCustomSecretIdResponse:
        if not request.secret_id:
            raise invalid("missing secret_id")
        secret = await self._add(request.role_name, request.secret_id, request.parameters, context)
        return pb.CreateCustomSecretIdResponse(
            secret=messages.secret_message(request.secret_id, secret)
        )

    async def ListSecretIds(
        self, request: pb.ListSecretIdsRequest, context: RequestContext
    ) -> pb.ListSecretIdsResponse:
        name, _ = await self._role(request.role_name, context)
        accessors = await self._roles.accessors(mount_of(context).uuid, name)
        return pb.ListSecretIdsResponse(keys=page(accessors, "", 0))

    async def LookupSecretId(
        self, request: pb.LookupSecretIdRequest, context: RequestContext
    ) -> pb.LookupSecretIdResponse:
        name, role = await self._role(request.role_name, context)
        if not request.secret_id:
            raise invalid("missing secret_id")
        secret = await self._secret(name, hash_of(role, request.secret_id), context)
        info = messages.info_message(secret) if secret is not None else None
        return pb.LookupSecretIdResponse(info=info)

    async def DestroySecretId(
        self, request: pb.DestroySecretIdRequest, context: RequestContext
    ) -> pb.DestroySecretIdResponse:
        await self._destroy(request.role_name, request.secret_id, context)
        return pb.DestroySecretIdResponse()

    async def DeleteSecretId(
        self, request: pb.DeleteSecretIdRequest, context: RequestContext
    ) -> pb.DeleteSecretIdResponse:
        await self._destroy(request.role_name, request.secret_id, context)
        return pb.DeleteSecretIdResponse()

    async def LookupSecretIdAccessor(
        self, request: pb.LookupSecretIdAccessorRequest, context: RequestContext
    ) -> pb.LookupSecretIdAccessorResponse:
        _, _, secret = await self._by_accessor(
            request.role_name, request.secret_id_accessor, context
        )
        return pb.LookupSecretIdAccessorResponse(info=messages.info_message(secret))

    async def DestroySecretIdAccessor(
        self, request: pb.DestroySecretIdAccessorRequest, context: RequestContext
    ) -> pb.DestroySecretIdAccessorResponse:
        await self._destroy_by_accessor(request.role_name, request.secret_id_accessor, context)
        return pb.DestroySecretIdAccessorResponse()

    async def DeleteSecretIdAccessor(
        self, request: pb.DeleteSecretIdAccessorRequest, context: RequestContext
    ) -> pb.DeleteSecretIdAccessorResponse:
        await self._destroy_by_accessor(request.role_name, request.secret_id_accessor, context)
        return pb.DeleteSecretIdAccessorResponse()

    async def ReadRoleSetting(
        self, request: pb.ReadRoleSettingRequest, context: RequestContext
    ) -> pb.ReadRoleSettingResponse:
        _, role = await self._role(request.role_name, context)
        shown = messages.only(messages.role_message(role), request.setting)
        return pb.ReadRoleSettingResponse(role=shown)

    async def WriteRoleSetting(
        self, request: pb.WriteRoleSettingRequest, context: RequestContext
    ) -> pb.WriteRoleSettingResponse:
        _check_changes(request.setting)
        given = messages.only(request.role, request.setting)
        if given == pb.AppRole():
            raise invalid(f"{request.setting.replace('-', '_')}: must be given")
        await self._update(request.role_name, context, lambda role: messages.changed(role, given))
        return pb.WriteRoleSettingResponse()

    async def DeleteRoleSetting(
        self, request: pb.DeleteRoleSettingRequest, context: RequestContext
    ) -> pb.DeleteRoleSettingResponse:
        _check_changes(request.setting)
        await self._update(
            request.role_name, context, lambda role: messages.without(role, request.setting)
        )
        return pb.DeleteRoleSettingResponse()

    async def TidySecretIds(
        self, request: pb.TidySecretIdsRequest, context: RequestContext
    ) -> pb.TidySecretIdsResponse:
        await self._roles.sweep(self._tokens.now())
        return pb.TidySecretIdsResponse(warnings=["Secret ids whose time is over were removed."])

    async def LoginAppRole(
        self, request: pb.LoginAppRoleRequest, context: RequestContext
    ) -> pb.LoginAppRoleResponse:
        issued, warnings = await self._logins.login(request.role_id, request.secret_id, context)
        auth = auth_message(issued.token, issued.text, issued.token.ttl)
        return pb.LoginAppRoleResponse(auth=auth, warnings=warnings)

    async def _destroy(self, role_name: str, secret_id: str, context: RequestContext) -> None:
        name, role = await self._role(role_name, context)
        if not secret_id:
            raise invalid("missing secret_id")
        hashed = hash_of(role, secret_id)
        secret = await self._secret(name, hashed, context)
        if secret is not None:
            await self._roles.destroy(mount_of(context).uuid, name, hashed, secret.accessor)

    async def _destroy_by_accessor(
        self, role_name: str, accessor: str, context: RequestContext
    ) -> None:
        name, hashed, secret = await self._by_accessor(role_name, accessor, context)
        await self._roles.destroy(mount_of(context).uuid, name, hashed, secret.accessor)

    async def _role(self, name: str, context: RequestContext) -> tuple[str, Role]:
        name = _clean(name)
        role = await self._roles.get(mount_of(context).uuid, name)
        if role is None:
            raise not_found()
        return name, role

    async def _update(
        self, name: str, context: RequestContext, change: Callable[[Role], Role]
    ) -> None:
        async def existing(before: Role | None) -> Role:
            if before is None:
                raise not_found()
            return change(before)

        await self._roles.change(mount_of(context).uuid, _clean(name), existing)

    async def _add(
        self, name: str, text: str, parameters: pb.SecretIdParameters, context: RequestContext
    ) -> SecretId:
        name, role = await self._role(name, context)
        if not role.bind_secret_id:
            raise invalid("bind_secret_id is not set on the role")
        check_length("secret_id", text, bounds.MAX_SECRET_ID_CHARACTERS)
        mount = mount_of(context)
        secret = new_secret_id(role, parameters, self._tokens.now(), mount.max_lease_ttl)
        await self._roles.add_secret_id(mount.uuid, name, role, hash_of(role, text), secret)
        return secret

    async def _secret(self, name: str, hashed: str, context: RequestContext) -> SecretId | None:
        found = await self._roles.secret_id(mount_of(context).uuid, name, hashed)
        return found[0] if found and found[0].alive(self._tokens.now()) else None

    async def _by_accessor(
        self, role_name: str, accessor: str, context: RequestContext
    ) -> tuple[str, str, SecretId]:
        name, _ = await self._role(role_name, context)
        if not accessor:
            raise invalid("missing secret_id_accessor")
        hashed = await self._roles.hash_by_accessor(mount_of(context).uuid, name, accessor)
        secret = await self._secret(name, hashed, context) if hashed else None
        if secret is None:
            # Terraform looks for this text.
            raise not_found("failed to find accessor entry for secret_id_accessor")
        return name, hashed, secret

    async def _renewal(self, token: Token) -> RenewalRule:
        role = await self._roles.get(token.login["mount"], token.login["name"])
        if role is None:
            raise invalid("the role of this token does not exist any more")
        return settings.renewal(role.settings)


def _check_changes(setting: str) -> None:
    if setting == "local-secret-ids":
        raise ServiceError(Kind.UNSUPPORTED, "unsupported operation")


def _clean(name: str) -> str:
    """Returns the one form of a role's name."""
    return name.strip().lower()

"""Users of an etcd, made and brought up to date: what is as it should be is left alone.

Nothing here is atomic, and nothing has to be: whatever ends it half-way, the next run goes on. Access control is
turned on last, so that it never keeps out those whose users are not there yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, prefix_end

ROOT = "root"

_TYPES = {
    "read": etcd_pb2.Permission.READ,
    "readwrite": etcd_pb2.Permission.READWRITE,
}


@dataclass(frozen=True, slots=True)
class User:
    """A user who has one role of the same name.

    Args:
        name: its name.
        password: what it logs in with.
        rights: pairs of `read` or `readwrite` and the prefix of keys that it is for.
    """

    name: str
    password: str = field(repr=False)
    rights: Sequence[tuple[str, str]] = ()


class Users:
    """Brings the users of an etcd up to date.

    Args:
        client: logs in as root, once access control is turned on.
        changes: gets what is changed, in words.
    """

    def __init__(self, client: EtcdClient, changes: list[str]) -> None:
        self._client = client
        self._changes = changes

    async def apply(
        self, root_password: str, users: Sequence[User], *, keep_rights: bool = False
    ) -> None:
        """Makes root and the users, with exactly their rights, and turns access control on.

        Args:
            root_password: of root.
            users: the others.
            keep_rights: takes none away that they have beyond theirs, such as those of another release.

        Raises:
            ServiceError: UNAVAILABLE; etcd does not answer, or root's password is another one.
        """
        root = User(ROOT, root_password)
        try:
            for user in (root, *users):
                await self._role(user, keep_rights=keep_rights)
                await self._user(user)
            if not await self._client.accepts(ROOT, root_password):
                await self._client.administer("AuthEnable", etcd_pb2.AuthEnableRequest())
                self._changes.append("access control: turned on")
        except grpc.aio.AioRpcError as error:
            reason = error.details() or error.code().name
            raise ServiceError(Kind.UNAVAILABLE, f"etcd did not do it: {reason}") from error

    async def _role(self, user: User, *, keep_rights: bool) -> None:
        role = await self._found("RoleGet", etcd_pb2.AuthRoleGetRequest(role=user.name))
        if role is None:
            await self._client.administer("RoleAdd", etcd_pb2.AuthRoleAddRequest(name=user.name))
            self._changes.append(f"{user.name}: role made")
        if user.name == ROOT:
            return  # it may do everything, whatever its role says
        has = {_range(each): each.perm_type for each in (role.perm if role else ())}
        wanted = _permissions(user.rights)
        for (key, end), kind in wanted.items():
            enough = {kind, etcd_pb2.Permission.READWRITE} if keep_rights else {kind}
            if has.get((key, end)) not in enough:
                permission = etcd_pb2.Permission(perm_type=kind, key=key, range_end=end)
                request = etcd_pb2.AuthRoleGrantPermissionRequest(name=user.name, perm=permission)
                await self._client.administer("RoleGrantPermission", request)
                self._changes.append(f"{user.name}: may use {key.decode()}")
        for key, end in () if keep_rights else has.keys() - wanted.keys():
            revoke = etcd_pb2.AuthRoleRevokePermissionRequest(
                role=user.name, key=key, range_end=end
            )
            await self._client.administer("RoleRevokePermission", revoke)
            self._changes.append(f"{user.name}: may no longer use {key.decode(errors='replace')}")

    async def _user(self, user: User) -> None:
        found = await self._found("UserGet", etcd_pb2.AuthUserGetRequest(name=user.name))
        if found is None:
            request = etcd_pb2.AuthUserAddRequest(name=user.name, password=user.password)
            await self._client.administer("UserAdd", request)
            self._changes.append(f"{user.name}: user made")
        elif not await self._client.accepts(user.name, user.password):
            change = etcd_pb2.AuthUserChangePasswordRequest(name=user.name, password=user.password)
            await self._client.administer("UserChangePassword", change)
            self._changes.append(f"{user.name}: password set")
        if found is None or user.name not in found.roles:
            grant = etcd_pb2.AuthUserGrantRoleRequest(user=user.name, role=user.name)
            await self._client.administer("UserGrantRole", grant)

    async def _found(self, method: str, request: Any) -> Any:
        """Returns what is there; None where nothing is."""
        try:
            return await self._client.administer(method, request)
        except grpc.aio.AioRpcError as error:
            if "name not found" in (error.details() or ""):
                return None
            raise


def _range(permission: etcd_pb2.Permission) -> tuple[bytes, bytes]:
    return permission.key, permission.range_end


def _permissions(
    rights: Sequence[tuple[str, str]],
) -> Mapping[tuple[bytes, bytes], etcd_pb2.Permission.Type.ValueType]:
    return {(prefix.encode(), prefix_end(prefix.encode())): _TYPES[kind] for kind, prefix in rights}

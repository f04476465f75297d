"""Token roles: where they are kept, and as messages."""

import re

import msgspec

from strongroom.auth.v1 import login_pb2, token_pb2
from strongroom_auth.changes import change
from strongroom_auth.tokens import rules
from strongroom_auth.tokens.records import TokenRole
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import check_right
from strongroom_runtime.storage import Entry, Path, Plain, Store, Transaction

_TYPES = ("", "default", "default-service", "service")
_SUFFIX = re.compile(r"\w([\w.-]*\w)?", re.ASCII)

# Fields of the record that hold lists, by the names of the contract.
_LISTS = {
    "allowed_policies": "allowed",
    "allowed_policies_glob": "allowed_globs",
    "disallowed_policies": "disallowed",
    "disallowed_policies_glob": "disallowed_globs",
    "token_bound_cidrs": "cidrs",
}
_SCALARS = {
    "orphan": "orphan",
    "renewable": "renewable",
    "path_suffix": "path_suffix",
    "token_explicit_max_ttl": "explicit_max",
    "token_no_default_policy": "no_default",
    "token_num_uses": "uses",
    "token_period": "period",
    "token_type": "type",
    "token_strictly_bind_ip": "strict_ip",
}


class TokenRoles:
    """All token roles."""

    def __init__(self, store: Store, attempts: int) -> None:
        self._store = store
        self._attempts = attempts

    async def get(self, name: str) -> TokenRole | None:
        """Returns a role."""
        entry = await self._store.get(_path(name))
        return msgspec.msgpack.decode(entry.value, type=TokenRole) if entry else None

    async def names(self) -> list[str]:
        """Returns the names of all roles, sorted."""
        return [name for name, _ in await self._store.children((Plain("token-role"),))]

    async def write(self, name: str, message: token_pb2.TokenRole, context: RequestContext) -> None:
        """Changes what a message gives; the rest stays."""

        async def changed(entry: Entry | None) -> bytes:
            check_right(context, entry is not None)
            before = msgspec.msgpack.decode(entry.value, type=TokenRole) if entry else TokenRole()
            return msgspec.msgpack.encode(_changed(before, message))

        await change(self._store, _path(name), changed, self._attempts)

    async def delete(self, name: str) -> None:
        """Removes a role."""
        await self._store.commit(Transaction(deletes=[_path(name)]))


def role_message(name: str, role: TokenRole) -> token_pb2.TokenRole:
    """Returns a role as clients see it."""
    message = token_pb2.TokenRole(name=name)
    for field, attribute in _LISTS.items():
        values = login_pb2.TextList(values=getattr(role, attribute))
        getattr(message, field).CopyFrom(values)
    for field, attribute in _SCALARS.items():
        setattr(message, field, getattr(role, attribute))
    return message


def _changed(before: TokenRole, message: token_pb2.TokenRole) -> TokenRole:
    changes: dict[str, object] = {}
    for descriptor, value in message.ListFields():
        if descriptor.name in _LISTS:
            changes[_LISTS[descriptor.name]] = tuple(value.values)
        elif descriptor.name in _SCALARS:
            changes[_SCALARS[descriptor.name]] = value
    for attribute in ("allowed", "disallowed"):
        if attribute in changes:
            changes[attribute] = rules.clean_policies(changes[attribute])  # type: ignore[arg-type]
    role = msgspec.structs.replace(before, **changes)
    if role.type not in _TYPES:
        raise invalid("token_type: only service tokens are supported")
    if min(role.explicit_max, role.uses, role.period) < 0:
        raise invalid("token_explicit_max_ttl, token_num_uses, token_period: must not be negative")
    rules.check_cidrs("token_bound_cidrs", role.cidrs)
    rules.check_strict_ip(role.cidrs, strict=role.strict_ip)
    if role.path_suffix and not _SUFFIX.fullmatch(role.path_suffix):
        raise invalid(
            "path_suffix: takes letters, digits, _, - and ., the last two not at its ends"
        )
    if "root" in role.allowed:
        raise invalid("allowed_policies: root cannot be allowed by a role")
    return role


def _path(name: str) -> Path:
    if not name:
        raise invalid("role_name: must not be empty")
    return (Plain("token-role"), name)

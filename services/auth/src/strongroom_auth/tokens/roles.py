"""Token roles: where they are kept, and as messages."""

import msgspec

from strongroom.auth.v1 import login_pb2, token_pb2
from strongroom_auth import old_names
from strongroom_auth.changes import change
from strongroom_auth.tokens import bounds, rules
from strongroom_auth.tokens.records import TokenRole
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import check_length, check_right
from strongroom_runtime.storage import Entry, Path, Plain, Store, Transaction

_TYPES = ("", "default", "default-service", "service")

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
# Settings that have an older name as well, which is shown where it was the one last written.
_OLD = {
    "period": "token_period",
    "bound_cidrs": "token_bound_cidrs",
    "explicit_max_ttl": "token_explicit_max_ttl",
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

    async def write(
        self, name: str, message: token_pb2.TokenRole, context: RequestContext
    ) -> TokenRole:
        """Changes what a message gives; the rest stays. Returns the role as it is then."""
        after = TokenRole()

        async def changed(entry: Entry | None) -> bytes:
            nonlocal after
            check_right(context, entry is not None)
            if entry is None:
                bounds.check_new_name("role_name", name)
            before = msgspec.msgpack.decode(entry.value, type=TokenRole) if entry else TokenRole()
            after = _changed(before, message)
            return msgspec.msgpack.encode(after)

        await change(self._store, _path(name), changed, self._attempts)
        return after

    async def delete(self, name: str) -> None:
        """Removes a role."""
        await self._store.commit(Transaction(deletes=[_path(name)]))


def role_message(name: str, role: TokenRole) -> token_pb2.TokenRole:
    """Returns a role as clients see it."""
    message = token_pb2.TokenRole(name=name, period=0, explicit_max_ttl=0)
    for field, attribute in _LISTS.items():
        values = login_pb2.TextList(values=getattr(role, attribute))
        getattr(message, field).CopyFrom(values)
    for field, attribute in _SCALARS.items():
        setattr(message, field, getattr(role, attribute))
    old_names.show(message, message, _OLD, role.old)
    if not role.cidrs:
        message.ClearField("token_bound_cidrs")
    if not role.uses:
        message.ClearField("token_num_uses")
    if role.aliases is not None:
        message.allowed_entity_aliases.values.extend(role.aliases)
        message.allowed_entity_aliases.SetInParent()
    return message


def role_warnings(message: token_pb2.TokenRole, role: TokenRole, longest: int) -> list[str]:
    """Returns what is to be said to who wrote a role: what was not taken, and what will not hold.

    Args:
        message: what was given.
        role: as it is now.
        longest: how long tokens may live at the most, in seconds.
    """
    said = [
        f"Both '{field}' and deprecated '{old}' value supplied, ignoring the deprecated value"
        for old, field in _OLD.items()
        if message.HasField(old) and message.HasField(field)  # type: ignore[arg-type]
    ]
    said += [
        f"{field}: only * stands for other characters; ? and [ stand for themselves"
        for field in ("allowed_policies_glob", "disallowed_policies_glob")
        if any(set("?[") & set(glob) for glob in getattr(message, field).values)
    ]
    if role.explicit_max > longest:
        said.append(
            f"Given explicit max TTL of {role.explicit_max} is greater than system/mount allowed value of {longest}"
            " seconds; only periodic tokens of this role can live longer than that"
        )
    return said


def _changed(before: TokenRole, message: token_pb2.TokenRole) -> TokenRole:
    given = token_pb2.TokenRole()
    given.CopyFrom(message)
    changes: dict[str, object] = {"old": old_names.take(given, given, _OLD, before.old)}
    for descriptor, value in given.ListFields():
        if descriptor.name in _LISTS:
            changes[_LISTS[descriptor.name]] = _taken(descriptor.name, value)
        elif descriptor.name in _SCALARS:
            changes[_SCALARS[descriptor.name]] = value
    if given.HasField("allowed_entity_aliases"):
        changes["aliases"] = _taken("allowed_entity_aliases", given.allowed_entity_aliases)
    role = msgspec.structs.replace(before, **changes)
    if role.type not in _TYPES:
        raise invalid("token_type: only service tokens are supported")
    if role.type in ("", "default"):  # which Vault knows of login methods alone
        role = msgspec.structs.replace(role, type="default-service")
    if min(role.explicit_max, role.uses, role.period) < 0:
        raise invalid("token_explicit_max_ttl, token_num_uses, token_period: must not be negative")
    rules.check_cidrs("token_bound_cidrs", role.cidrs)
    rules.check_strict_ip(role.cidrs, strict=role.strict_ip)
    if role.path_suffix and not bounds.is_name(role.path_suffix):
        raise invalid(f"path_suffix: {bounds.NAMES}")
    if message.HasField("path_suffix"):
        check_length("path_suffix", message.path_suffix, bounds.MAX_NAME_CHARACTERS)
    if "root" in role.allowed:
        raise invalid("allowed_policies: root cannot be allowed by a role")
    return role


def _taken(field: str, given: login_pb2.TextList) -> tuple[str, ...]:
    """Returns a list that a message gives: address ranges, or names, which are cleaned."""
    if field == "token_bound_cidrs":
        bounds.check_ranges(field, given.values)
        return tuple(given.values)
    names = rules.clean_policies(given.values)
    bounds.check_policies(field, names)
    return names


def _path(name: str) -> Path:
    if not name:
        raise invalid("role_name: must not be empty")
    return (Plain("token-role"), name)

"""Roles and secret ids as messages."""

from typing import Any

import msgspec

from strongroom.auth.v1 import approle_pb2 as pb
from strongroom.auth.v1 import login_pb2
from strongroom_auth import old_names, settings
from strongroom_auth.approle.roles import Role, SecretId, new_role
from strongroom_auth.settings import Settings
from strongroom_auth.tokens import bounds, rules
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.timestamps import rfc3339

_NEVER = "0001-01-01T00:00:00Z"
_SCALARS = {
    "bind_secret_id": "bind_secret_id",
    "secret_id_num_uses": "secret_id_uses",
    "secret_id_ttl": "secret_id_ttl",
    "local_secret_ids": "local_secret_ids",
}

# The settings that have a path of their own: the field of the role, or of its token settings.
ROLE_SETTINGS = {
    "bind-secret-id": "bind_secret_id",
    "secret-id-num-uses": "secret_id_num_uses",
    "secret-id-ttl": "secret_id_ttl",
    "secret-id-bound-cidrs": "secret_id_bound_cidrs",
    "local-secret-ids": "local_secret_ids",
}
TOKEN_SETTINGS = {
    "policies": "token_policies",
    "token-ttl": "token_ttl",
    "token-max-ttl": "token_max_ttl",
    "token-num-uses": "token_num_uses",
    "token-bound-cidrs": "token_bound_cidrs",
    "period": "token_period",
}
_OLD_NAMES = {"period": "token_period", "policies": "token_policies"}


def changed(before: Role, message: pb.AppRole) -> Role:
    """Returns a role with what a message gives.

    Raises:
        ServiceError: INVALID.
    """
    changes: dict[str, Any] = {
        attribute: getattr(message, field)
        for field, attribute in _SCALARS.items()
        if message.HasField(field)  # type: ignore[arg-type]
    }
    if message.HasField("secret_id_bound_cidrs"):
        changes["secret_id_cidrs"] = tuple(message.secret_id_bound_cidrs.values)
        bounds.check_ranges("secret_id_bound_cidrs", changes["secret_id_cidrs"])
    changes["settings"] = settings.changed(before.settings, message, _OLD_NAMES)
    after = msgspec.structs.replace(before, **changes)
    if min(after.secret_id_uses, after.secret_id_ttl) < 0:
        raise invalid("secret_id_num_uses and secret_id_ttl must not be negative")
    rules.check_cidrs("secret_id_bound_cidrs", after.secret_id_cidrs)
    if not (after.bind_secret_id or after.secret_id_cidrs or after.settings.cidrs):
        raise invalid("at least one constraint should be enabled on the role")
    return after


def role_message(role: Role) -> pb.AppRole:
    """Returns a role as clients see it."""
    message = pb.AppRole(
        secret_id_bound_cidrs=login_pb2.TextList(values=role.secret_id_cidrs),
        settings=settings.message(role.settings),
    )
    for field, attribute in _SCALARS.items():
        setattr(message, field, getattr(role, attribute))
    old_names.show(message, message.settings, _OLD_NAMES, role.settings.old)
    return message


def only(message: pb.AppRole, setting: str) -> pb.AppRole:
    """Returns a role message with one setting alone.

    Raises:
        ServiceError: NOT_FOUND for a name that is none.
    """
    result = pb.AppRole()
    if setting in ROLE_SETTINGS:
        _copy(message, result, ROLE_SETTINGS[setting])
    elif setting in TOKEN_SETTINGS:
        field = TOKEN_SETTINGS[setting]
        _copy(message.settings, result.settings, field)
        for old, name in _OLD_NAMES.items():
            if name == field:
                _copy(message, result, old)
    else:
        raise not_found("unsupported path")
    return result


def without(role: Role, setting: str) -> Role:
    """Returns a role with one setting at its default."""
    default = role_message(new_role(role.role_id))
    defaults = settings.message(Settings())
    default.settings.CopyFrom(defaults)
    return changed(role, only(default, setting))


def secret_message(text: str, secret: SecretId) -> pb.SecretId:
    """Returns a secret id as its owner sees it once."""
    return pb.SecretId(
        secret_id=text,
        secret_id_accessor=secret.accessor,
        secret_id_ttl=secret.ttl,
        secret_id_num_uses=secret.uses,
    )


def info_message(secret: SecretId) -> pb.SecretIdInfo:
    """Returns what is known of a secret id."""
    return pb.SecretIdInfo(
        cidr_list=secret.cidrs,
        creation_time=rfc3339(secret.created),
        expiration_time=rfc3339(secret.expires) if secret.expires else _NEVER,
        last_updated_time=rfc3339(secret.updated),
        metadata=secret.metadata,
        secret_id_accessor=secret.accessor,
        secret_id_num_uses=secret.uses,
        secret_id_ttl=secret.ttl,
        token_bound_cidrs=secret.token_cidrs,
    )


def _copy(source: Any, target: Any, field: str) -> None:
    if source.HasField(field):
        old_names.put(target, field, getattr(source, field))

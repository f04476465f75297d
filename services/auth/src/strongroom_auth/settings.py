"""The settings that every login role has in common, and the tokens that logins make."""

from collections.abc import Mapping
from typing import Any

import msgspec

from strongroom.auth.v1 import login_pb2
from strongroom_auth import old_names
from strongroom_auth.tokens import bounds, rules
from strongroom_auth.tokens.tokens import Grant, RenewalRule
from strongroom_runtime import lifetimes
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import mount_of

# What clients may ask for, and what it is: the login method's own type cannot be changed, so that both say the same.
_TYPES = {"": "default", "default": "default", "default-service": "service", "service": "service"}
_SCALARS = {
    "token_ttl": "ttl",
    "token_max_ttl": "max_ttl",
    "token_explicit_max_ttl": "explicit_max",
    "token_no_default_policy": "no_default",
    "token_num_uses": "uses",
    "token_period": "period",
    "token_type": "type",
    "token_strictly_bind_ip": "strict_ip",
}


class Settings(msgspec.Struct, frozen=True):
    """How the tokens of a role are made; spans in seconds, 0 for the mount's or none.

    Args:
        old: the settings that were written last by their older names, which are shown as well.
    """

    ttl: int = 0
    max_ttl: int = 0
    policies: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    explicit_max: int = 0
    no_default: bool = False
    uses: int = 0
    period: int = 0
    type: str = "default"
    strict_ip: bool = False
    old: tuple[str, ...] = ()


def changed(before: Settings, message: Any, names: Mapping[str, str]) -> Settings:
    """Returns the settings with what a message gives, by new names or by old ones alone.

    Args:
        before: as they are.
        message: of a role or a user, with `settings` and fields of old names.
        names: the fields of the settings by their old names.

    Raises:
        ServiceError: INVALID.
    """
    given = login_pb2.TokenSettings()
    given.CopyFrom(message.settings)
    old = old_names.take(given, message, names, before.old)
    return msgspec.structs.replace(_changed(before, given), old=old)


def _changed(before: Settings, message: login_pb2.TokenSettings) -> Settings:
    """Returns the settings with what a message gives.

    Raises:
        ServiceError: INVALID.
    """
    changes: dict[str, Any] = {
        attribute: getattr(message, field)
        for field, attribute in _SCALARS.items()
        if message.HasField(field)  # type: ignore[arg-type]
    }
    if message.HasField("token_policies"):
        changes["policies"] = rules.clean_policies(message.token_policies.values)
        bounds.check_policies("token_policies", changes["policies"])
    if message.HasField("token_bound_cidrs"):
        changes["cidrs"] = tuple(message.token_bound_cidrs.values)
        bounds.check_ranges("token_bound_cidrs", changes["cidrs"])
    if changes.get("type", "default") not in _TYPES:
        raise invalid("token_type: only service tokens are supported")
    changes["type"] = _TYPES[changes.get("type", before.type)]
    after = msgspec.structs.replace(before, **changes)
    _check_no_root(after)
    if min(after.ttl, after.max_ttl, after.explicit_max, after.uses, after.period) < 0:
        raise invalid("token settings must not be negative")
    rules.check_cidrs("token_bound_cidrs", after.cidrs)
    rules.check_strict_ip(after.cidrs, strict=after.strict_ip)
    if after.max_ttl and after.ttl > after.max_ttl:
        raise invalid("token_ttl: must not be longer than token_max_ttl")
    return after


def message(settings: Settings) -> login_pb2.TokenSettings:
    """Returns the settings as clients see them."""
    result = login_pb2.TokenSettings(
        token_policies=login_pb2.TextList(values=settings.policies),
        token_bound_cidrs=login_pb2.TextList(values=settings.cidrs),
    )
    for field, attribute in _SCALARS.items():
        setattr(result, field, getattr(settings, attribute))
    return result


def grant(
    settings: Settings,
    context: RequestContext,
    *,
    now: float,
    display_name: str,
    meta: dict[str, str],
    login: dict[str, str],
    cidrs: tuple[str, ...] = (),
) -> tuple[Grant, tuple[str, ...]]:
    """Returns the token that a login makes, and what is done otherwise than its role says.

    Raises:
        ServiceError: DENIED where the token could not be used from the client's address.
    """
    mount = mount_of(context)
    _check_no_root(settings)
    span = lifetimes.span(
        now=now,
        created=now,
        asked=settings.ttl,
        usual=mount.default_lease_ttl,
        longest=min(t for t in (settings.max_ttl, mount.max_lease_ttl) if t),
        period=settings.period,
        explicit_max=settings.explicit_max,
    )
    made = Grant(
        policies=rules.with_default(settings.policies, settings.no_default),
        path=context.path,
        display_name=display_name,
        ttl=span.ttl,
        explicit_max=settings.explicit_max,
        period=settings.period,
        longest=mount.max_lease_ttl,
        uses=settings.uses,
        meta=meta,
        cidrs=rules.bound_to(
            context.client_address, cidrs or settings.cidrs, strict=settings.strict_ip
        ),
        mount=mount.uuid,
        login=login,
    )
    return made, span.warnings


def _check_no_root(settings: Settings) -> None:
    """Raises where a login would make a root token: whoever may write users and roles would be root."""
    if "root" in settings.policies:
        raise invalid("auth methods cannot create root tokens")


def renewal(settings: Settings) -> RenewalRule:
    """Returns what a role gives a token that is renewed."""
    return RenewalRule(settings.ttl, settings.max_ttl, settings.period)

"""Tokens as messages."""

import msgspec

from strongroom.auth.v1 import login_pb2, token_pb2
from strongroom_auth.tokens.records import Token
from strongroom_runtime.timestamps import timestamp


def auth_message(token: Token, text: str, ttl: int) -> login_pb2.Auth:
    """Returns what the owner of a token gets to see."""
    return login_pb2.Auth(
        client_token=text,
        accessor=token.accessor,
        policies=token.policies,
        token_policies=token.policies,
        metadata=token.meta,
        lease_duration=ttl,
        renewable=token.renewable,
        entity_id=token.entity,
        token_type="service",  # noqa: S106 (a kind of token, not one)
        orphan=not token.ancestors,
        num_uses=token.uses,
    )


def info_message(token: Token, now: float, text: str = "") -> token_pb2.TokenInfo:
    """Returns what is known of a token."""
    expires = token.shown_expires
    info = token_pb2.TokenInfo(
        id=text,
        accessor=token.accessor,
        policies=token.policies,
        path=token.path,
        meta=msgspec.json.encode(token.meta or None),
        display_name=token.display_name,
        num_uses=token.uses,
        orphan=not token.ancestors,
        creation_time=int(token.created),
        creation_ttl=token.ttl,
        expire_time=timestamp(expires),
        issue_time=timestamp(token.renewed or token.created),
        last_renewal=timestamp(token.renewed),
        ttl=max(0, round(expires - now)) if expires else 0,
        explicit_max_ttl=token.explicit_max,
        entity_id=token.entity,
        type="service",
        renewable=token.renewable,
    )
    if token.period:
        info.period = token.period
    if token.role:
        info.role = token.role
    if token.cidrs:
        info.bound_cidrs.values.extend(token.cidrs)
    if token.renewed:
        info.last_renewal_time = int(token.renewed)
    return info

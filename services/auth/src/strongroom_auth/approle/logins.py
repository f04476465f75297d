"""Secret ids and logins: what is decided, and the one transaction that a login is."""

import uuid

import msgspec

from strongroom.auth.v1 import approle_pb2 as pb
from strongroom_auth import changes, settings
from strongroom_auth.approle.roles import (
    Role,
    Roles,
    SecretId,
    hash_of,
    removal,
    role_path,
    secret_path,
)
from strongroom_auth.lockout import Failures, Lockouts
from strongroom_auth.tokens import bounds, rules
from strongroom_auth.tokens.tokens import Issued, Tokens
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import denied, invalid
from strongroom_runtime.mount_marks import unmoved
from strongroom_runtime.requests import key_values, mount_of
from strongroom_runtime.storage import Path, Transaction

METHOD = "approle"
_WRONG = "invalid role or secret ID"


def new_secret_id(
    role: Role, parameters: pb.SecretIdParameters, now: float, longest: int
) -> SecretId:
    """Returns a secret id for a role.

    Args:
        role: it.
        parameters: what was asked for.
        now: the time.
        longest: how many seconds it may live at the most, unless it lives for ever.

    Raises:
        ServiceError: INVALID for parameters that are wrong, or wider than the role's.
    """
    uses = parameters.num_uses if parameters.HasField("num_uses") else role.secret_id_uses
    ttl = parameters.ttl if parameters.HasField("ttl") else role.secret_id_ttl
    if min(uses, ttl) < 0:
        raise invalid("num_uses and ttl must not be negative")
    if role.secret_id_uses and not 0 < uses <= role.secret_id_uses:
        raise invalid("num_uses: must not exceed the role's secret_id_num_uses")
    if role.secret_id_ttl and not 0 < ttl <= role.secret_id_ttl:
        raise invalid("ttl: must not exceed the role's secret_id_ttl")
    ttl = min(ttl, longest)
    for field, given, outer in (
        ("cidr_list", parameters.cidr_list, role.secret_id_cidrs),
        ("token_bound_cidrs", parameters.token_bound_cidrs, role.settings.cidrs),
    ):
        bounds.check_ranges(field, given)
        rules.check_cidrs(field, given)
        rules.check_within(field, given, outer)
    return SecretId(
        accessor=str(uuid.uuid4()),
        created=now,
        updated=now,
        expires=now + ttl if ttl else 0.0,
        ttl=ttl,
        uses=uses,
        cidrs=tuple(parameters.cidr_list),
        token_cidrs=tuple(parameters.token_bound_cidrs),
        metadata=_metadata(parameters.metadata),
    )


def _metadata(text: str) -> dict[str, str]:
    """Returns what a text says: a JSON object of texts, or key=value pairs with commas between them."""
    try:
        if text.lstrip().startswith("{"):
            metadata = msgspec.json.decode(text, type=dict[str, str])
        else:
            metadata = key_values(text.split(","))
    except ValueError:  # as that of msgspec is
        raise invalid(
            "metadata: takes a JSON object of texts, as text, or pairs such as key=value"
        ) from None
    bounds.check_meta("metadata", metadata)
    return metadata


class Logins:
    """Exchanges role ids and secret ids for tokens."""

    def __init__(self, roles: Roles, tokens: Tokens, lockouts: Lockouts, attempts: int) -> None:
        self._roles = roles
        self._lockouts = lockouts
        self._tokens = tokens
        self._attempts = attempts

    async def login(
        self, role_id: str, secret_id: str, context: RequestContext
    ) -> tuple[Issued, tuple[str, ...]]:
        """Makes a token, and counts the use of the secret id in the same transaction.

        Raises:
            ServiceError: INVALID where role id or secret id are wrong, DENIED for an address that is not allowed, and
                after too many wrong secret ids.
        """
        if not role_id:
            raise invalid("missing role_id")
        return await changes.repeated(
            self._attempts * 10, lambda: self._login(role_id, secret_id, context)
        )

    async def _login(
        self, role_id: str, secret_id: str, context: RequestContext
    ) -> tuple[Issued, tuple[str, ...]]:
        """As `login`, if role and secret id stand as they were looked at.

        Raises:
            ConflictError: one of them does not.
        """
        mount = mount_of(context).uuid
        found = await self._roles.by_id(mount, role_id)
        if found is None:
            raise invalid(_WRONG)
        name, role, revision = found
        as_read = {role_path(mount, name): revision}
        if not rules.address_allowed(role.secret_id_cidrs, context.client_address):
            raise denied()
        if not role.bind_secret_id:
            return await self._issue(name, role, None, as_read, [], context)
        if not secret_id:
            raise invalid("missing secret_id")
        hashed = hash_of(role, secret_id)
        known = await self._roles.secret_id(mount, name, hashed)
        right = known is not None and known[0].alive(self._tokens.now())
        failures = await self._check_lockout(role_id, context, right=right)
        if known is None or not right:
            raise invalid(_WRONG)
        if not rules.address_allowed(known[0].cidrs, context.client_address):
            raise denied()
        # A login that succeeds forgets those that failed.
        forgotten = [self._lockouts.path(mount_of(context), role_id)] if failures else []
        return await self._issue(name, role, (hashed, *known), as_read, forgotten, context)

    async def _check_lockout(
        self, role_id: str, context: RequestContext, *, right: bool
    ) -> Failures | None:
        """Counts a wrong secret id; returns the failures before.

        Raises:
            ServiceError: DENIED where the role is locked, for a right one too.
        """
        mount, now = mount_of(context), self._tokens.now()
        failures = await self._lockouts.failures(mount, role_id)
        if self._lockouts.rule(mount).locked(failures, now):
            raise denied()
        if not right:
            await self._lockouts.count(mount, role_id, now)
        return failures

    async def _issue(
        self,
        name: str,
        role: Role,
        used: tuple[str, SecretId, int] | None,
        as_read: dict[Path, int],
        forgotten: list[Path],
        context: RequestContext,
    ) -> tuple[Issued, tuple[str, ...]]:
        mount = mount_of(context)
        secret = used[1] if used else None
        grant, warnings = settings.grant(
            role.settings,
            context,
            now=self._tokens.now(),
            display_name=METHOD,
            meta={**(secret.metadata if secret else {}), "role_name": name},
            login={"method": METHOD, "mount": mount.uuid, "name": name},
            cidrs=secret.token_cidrs if secret else (),
        )
        issued, transaction = self._tokens.prepare(grant)
        transaction.expect |= as_read | await unmoved(self._roles.store, mount)
        transaction.deletes += forgotten
        if used is not None:
            self._count(transaction, mount.uuid, name, used)
        await self._roles.store.commit(transaction)
        return issued, warnings

    def _count(
        self, transaction: Transaction, mount: str, name: str, used: tuple[str, SecretId, int]
    ) -> None:
        """Adds to a token's creation what becomes of the secret id: one use less, or gone with its last."""
        hashed, secret, revision = used
        path = secret_path(mount, name, hashed)
        transaction.expect[path] = revision
        if secret.uses == 1:
            transaction.deletes += removal(mount, name, hashed, secret.accessor).deletes
        elif secret.uses:
            left = msgspec.structs.replace(secret, uses=secret.uses - 1, updated=self._tokens.now())
            transaction.puts[path] = msgspec.msgpack.encode(left)

"""Where policies are kept."""

import asyncio

import msgspec

from strongroom_auth import changes
from strongroom_auth.policies.builtin import DEFAULT, RESPONSE_WRAPPING
from strongroom_auth.policies.ending import Ending
from strongroom_auth.policies.records import (
    POLICY,
    Change,
    PolicyRecord,
    decoded,
    due_path,
    policy_path,
)
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import invalid
from strongroom_runtime.long_policies import are_long
from strongroom_runtime.policy import PolicyError, parse_policy
from strongroom_runtime.storage import Entry, ReadSet, Store, Transaction
from strongroom_runtime.tools import base64_text

MAX_NAME = 512
# Policies that nobody can change.
_FIXED = {"root": "", "response-wrapping": RESPONSE_WRAPPING}


class PolicyStore:
    """All policies. Names are cleaned before anything looks at them.

    Args:
        store: the service's.
        attempts: how often a change that lost a race is decided anew.
        clock: by which policies end.
    """

    def __init__(self, store: Store, attempts: int, clock: Clock) -> None:
        self._store = store
        self._attempts = attempts
        self._clock = clock
        self.ending = Ending(store, clock)

    async def get(self, name: str, reads: ReadSet | None = None) -> PolicyRecord | None:
        """Returns a policy, the empty one for root, or None where it does not exist."""
        name = clean(name)
        if name in _FIXED:
            return PolicyRecord(_FIXED[name])
        if not name:
            return None
        path = policy_path(name)
        entry = await (reads.get(path) if reads is not None else self._store.get(path))
        record = decoded(entry.value) if entry is not None else None
        if record is not None and not record.gone(self._clock.now()):
            return record
        return PolicyRecord(DEFAULT) if name == "default" else None

    async def text(self, name: str, reads: ReadSet | None = None) -> str | None:
        """Returns a policy's text, the empty one for root, or None where it does not exist."""
        record = await self.get(name, reads)
        return record.text if record is not None else None

    async def names(self, prefix: str = "") -> list[str]:
        """Returns the names of all policies, or of those that begin with a prefix and a slash, sorted."""
        if self.ending.complete:
            stored = {name for name, _ in await self._store.children((POLICY,))}
            stored -= await self.ending.gone()
        else:
            entries = await self._store.scan((POLICY,))
            now = self._clock.now()
            stored = {e.path[1] for e in entries if not decoded(e.value).gone(now)}
        below = f"{clean(prefix).strip('/')}/" if prefix else ""
        return sorted(name for name in stored | {"default", "root"} if name.startswith(below))

    async def write(self, name: str, change: Change, now: float, *, patch: bool = False) -> None:
        """Writes a policy, or changes what is given of one.

        Raises:
            ServiceError: INVALID; it says where the text does not parse, or that the version did not match.
        """
        name = clean(name)
        if name in _FIXED:
            raise invalid(f'cannot update "{name}" policy')
        if not 0 < len(name) <= MAX_NAME:
            raise invalid(f"name: must have 1 to {MAX_NAME} characters")
        text = None
        if change.text is not None or not patch:
            text = await _checked(name, change.text or "")

        async def changed(entry: Entry | None) -> Transaction:
            stored = decoded(entry.value) if entry is not None else None
            before = None if stored is not None and stored.gone(now) else stored
            if patch and before is None:
                raise invalid("policy not found")
            return _replaced(name, stored, _changed(before, change, text, now, patch=patch))

        await changes.change_with(self._store, policy_path(name), changed, self._attempts)

    async def delete(self, name: str) -> None:
        """Removes a policy.

        Raises:
            ServiceError: INVALID for those that are always there.
        """
        name = clean(name)
        if name in _FIXED:
            raise invalid(f'cannot delete "{name}" policy')
        if name == "default":
            raise invalid("cannot delete default policy")
        if not name:
            raise invalid("name: must not be empty")

        async def removed(entry: Entry | None) -> Transaction:
            return _replaced(name, decoded(entry.value) if entry is not None else None, None)

        await changes.change_with(self._store, policy_path(name), removed, self._attempts)


def clean(name: str) -> str:
    """Returns a policy's name in lower case, trimmed."""
    return name.strip().lower()


def _replaced(name: str, before: PolicyRecord | None, after: PolicyRecord | None) -> Transaction:
    """Returns what puts a policy in the place of another, with its place among those that end."""
    old, new = (
        due_path(name, record) if record is not None else None for record in (before, after)
    )
    transaction = Transaction()
    if after is not None:
        transaction.puts[policy_path(name)] = msgspec.msgpack.encode(after)
    else:
        transaction.deletes.append(policy_path(name))
    if new is not None:
        transaction.puts[new] = b""
    if old is not None and old != new:
        transaction.deletes.append(old)
    return transaction


async def _checked(name: str, text: str) -> str:
    text = _decoded(text)
    if not text.strip():
        raise invalid("'policy' parameter not supplied or empty")
    try:
        if are_long([text]):  # others are answered meanwhile
            await asyncio.to_thread(parse_policy, name, text)
        else:
            parse_policy(name, text)
    except PolicyError as error:
        raise invalid(f"failed to parse policy: {error}") from error
    return text


def _changed(
    before: PolicyRecord | None, change: Change, text: str | None, now: float, *, patch: bool
) -> PolicyRecord:
    """Returns a policy with what a writer gives. One that is written without an end has none any more.

    Raises:
        ServiceError: INVALID where the writer names another version, or none and one must be named, or an end that
            has passed.
    """
    if change.expires is not None and change.expires <= now:
        raise invalid("refusing to update policy as expiration time has already elapsed")
    known = before or PolicyRecord("")
    required = known.cas_required if change.cas_required is None else change.cas_required
    if change.cas == -1 and before is not None:
        raise invalid("check-and-set parameter set to -1 on existing entry")
    if change.cas is None and (required or known.cas_required):
        raise invalid("check-and-set parameter required for this call")
    if change.cas not in (None, -1, known.version):
        raise invalid("check-and-set parameter did not match the current version")
    expires = known.expires if change.expires is None and patch else change.expires or 0.0
    return PolicyRecord(
        known.text if text is None else text, known.version + 1, now, required, expires
    )


def _decoded(text: str) -> str:
    """Returns a text that may have come in base64, in one line or several, which no policy looks like."""
    found = base64_text("".join(text.splitlines()).strip())
    return text if found is None else found

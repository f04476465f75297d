"""Where policies are kept."""

import contextlib

import msgspec

from strongroom_auth import changes
from strongroom_auth.policies.builtin import DEFAULT
from strongroom_runtime.errors import invalid
from strongroom_runtime.policy import PolicyError, parse_policy
from strongroom_runtime.shared_clock import SharedClock
from strongroom_runtime.storage import (
    ConflictError,
    Entry,
    Path,
    Plain,
    ReadSet,
    Store,
    Transaction,
)
from strongroom_runtime.tools import base64_text

MAX_NAME = 512

_POLICY = Plain("policy")


class PolicyRecord(msgspec.Struct, frozen=True):
    """A policy.

    Args:
        text: HCL or JSON.
        version: how often it was written.
        modified: when it was written last, seconds since 1970; 0 where that is not known.
        cas_required: whether writing it takes its version.
        expires: when it ends, by the clock of all replicas; 0 for never.
    """

    text: str
    version: int = 0
    modified: float = 0.0
    cas_required: bool = False
    expires: float = 0.0

    def gone(self, now: float) -> bool:
        """Whether it has ended: then it is as if it had been deleted."""
        return 0 < self.expires <= now


class Change(msgspec.Struct, frozen=True):
    """What a writer gives of a policy; None for as it is.

    `cas` is the version that it must have, -1 where it must not be there. `expires` is when it ends, 0 for never.
    """

    text: str | None = None
    cas: int | None = None
    cas_required: bool | None = None
    expires: float | None = None


class PolicyStore:
    """All policies. Names are cleaned before anything looks at them.

    Args:
        store: the service's.
        attempts: how often a change that lost a race is decided anew.
        clock: by which policies end.
    """

    def __init__(self, store: Store, attempts: int, clock: SharedClock) -> None:
        self._store = store
        self._attempts = attempts
        self._clock = clock

    async def get(self, name: str, reads: ReadSet | None = None) -> PolicyRecord | None:
        """Returns a policy, the empty one for root, or None where it does not exist."""
        name = clean(name)
        if name == "root":
            return PolicyRecord("")
        path = _path(name)
        entry = await (reads.get(path) if reads is not None else self._store.get(path))
        record = _decoded_record(entry.value) if entry is not None else None
        if record is not None and not await self._gone(record):
            return record
        return PolicyRecord(DEFAULT) if name == "default" else None

    async def text(self, name: str, reads: ReadSet | None = None) -> str | None:
        """Returns a policy's text, the empty one for root, or None where it does not exist."""
        record = await self.get(name, reads)
        return record.text if record is not None else None

    async def names(self, prefix: str = "") -> list[str]:
        """Returns the names of all policies, or of those that begin with a prefix and a slash, sorted."""
        entries = await self._store.scan((_POLICY,))
        stored = {
            entry.path[1] for entry in entries if not await self._gone(_decoded_record(entry.value))
        }
        below = f"{clean(prefix).strip('/')}/" if prefix else ""
        return sorted(name for name in stored | {"default", "root"} if name.startswith(below))

    async def write(self, name: str, change: Change, now: float, *, patch: bool = False) -> None:
        """Writes a policy, or changes what is given of one.

        Raises:
            ServiceError: INVALID; it says where the text does not parse, or that the version did not match.
        """
        name = clean(name)
        if name == "root":
            raise invalid('cannot update "root" policy')
        if not 0 < len(name) <= MAX_NAME:
            raise invalid(f"name: must have 1 to {MAX_NAME} characters")
        text = _checked(name, change.text or "") if change.text is not None or not patch else None

        async def changed(entry: Entry | None) -> bytes:
            before = _decoded_record(entry.value) if entry is not None else None
            if before is not None and before.gone(now):
                before = None
            if patch and before is None:
                raise invalid("policy not found")
            return msgspec.msgpack.encode(_changed(before, change, text, now, patch=patch))

        await changes.change(self._store, _path(name), changed, self._attempts)

    async def delete(self, name: str) -> None:
        """Removes a policy.

        Raises:
            ServiceError: INVALID for those that are always there.
        """
        name = clean(name)
        if name == "root":
            raise invalid('cannot delete "root" policy')
        if name == "default":
            raise invalid("cannot delete default policy")
        await self._store.commit(Transaction(deletes=[_path(name)]))

    async def remove_ended(self) -> None:
        """Removes policies that have ended, which only take room. May be done by several replicas at once."""
        for entry in await self._store.scan((_POLICY,)):
            if await self._gone(_decoded_record(entry.value)):
                # Another may have written it anew meanwhile.
                with contextlib.suppress(ConflictError):
                    await self._store.commit(
                        Transaction(expect={entry.path: entry.revision}, deletes=[entry.path])
                    )

    async def _gone(self, record: PolicyRecord) -> bool:
        if not record.expires:
            return False
        await self._clock.ready()
        return record.gone(self._clock.now())


def clean(name: str) -> str:
    """Returns a policy's name in lower case, trimmed."""
    return name.strip().lower()


def _checked(name: str, text: str) -> str:
    text = _decoded(text)
    if not text.strip():
        raise invalid("'policy' parameter not supplied or empty")
    try:
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


def _decoded_record(value: bytes) -> PolicyRecord:
    """Returns a policy as it is kept: before there were versions, as its text alone.

    A record begins with a byte (msgpack's fixmap) that no text in UTF-8 begins with.
    """
    if value[0] & 0xF0 != 0x80:
        return PolicyRecord(value.decode(), version=1)
    return msgspec.msgpack.decode(value, type=PolicyRecord)


def _decoded(text: str) -> str:
    """Returns a text that may have come in base64, in one line or several, which no policy looks like."""
    found = base64_text("".join(text.splitlines()).strip())
    return text if found is None else found


def _path(name: str) -> Path:
    return (_POLICY, name)

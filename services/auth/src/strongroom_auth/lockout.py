"""How failed logins are counted, and when they lock out (Vault documentation, "User lockout").

<method>/<mount>/f/<name>       failed logins since the last success

Anybody can add such a record, by a login with a name of his choice. So they go when they are of no more use, and
what is longer than names are is not counted.
"""

import contextlib

import msgspec

from strongroom_auth.changes import change
from strongroom_auth.config import Config
from strongroom_runtime.context import MountContext
from strongroom_runtime.durations import parse_seconds
from strongroom_runtime.storage import (
    ConflictError,
    Entry,
    Path,
    Plain,
    Store,
    Transaction,
    going_past,
)

_PAGE = 100
# For which records of an earlier version stay, which do not say when they end.
_OLD_SECONDS = 30 * 86_400
LONGEST_COUNTED = 512  # characters of a name that nobody has


class Failures(msgspec.Struct, frozen=True):
    """Failed logins since the last success: how many, when the last one was, and when they are of no more use."""

    count: int
    last: float
    ends: float = 0.0


class Lockout(msgspec.Struct, frozen=True):
    """When a name is locked; 0 failures for never."""

    threshold: int
    seconds: int
    reset_seconds: int

    def locked(self, failures: Failures | None, now: float) -> bool:
        """Whether a name may not try now."""
        if failures is None or not self.threshold or failures.count < self.threshold:
            return False
        return now < failures.last + self.seconds

    def counted(self, failures: Failures | None, now: float) -> Failures:
        """Returns the failures with one more; old ones are forgotten."""
        stale = failures is None or now > failures.last + self.reset_seconds
        ends = now + max(self.seconds, self.reset_seconds)
        return Failures(1 if failures is None or stale else failures.count + 1, now, ends)


class Lockouts:
    """The failed logins of all mounts of one login method.

    Args:
        store: the service's.
        config: of the service.
        method: userpass or approle.
    """

    def __init__(self, store: Store, config: Config, method: str) -> None:
        self._store = store
        self._method = Plain(method)
        self._attempts = config.attempts
        self._default = Lockout(
            config.lockout_threshold, config.lockout_seconds, config.lockout_reset_seconds
        )

    def rule(self, mount: MountContext) -> Lockout:
        """Returns when names of a mount are locked: as it was tuned, or as configured."""
        tuned = msgspec.json.decode(mount.config) if mount.config else {}
        given = tuned.get("user_lockout_config") if isinstance(tuned, dict) else None
        if not isinstance(given, dict):
            return self._default
        if given.get("lockout_disable"):
            return Lockout(0, 0, 0)
        default = self._default
        return Lockout(
            int(given.get("lockout_threshold") or default.threshold),
            parse_seconds(given.get("lockout_duration") or default.seconds),
            parse_seconds(given.get("lockout_counter_reset") or default.reset_seconds),
        )

    async def failures(self, mount: MountContext, name: str) -> Failures | None:
        """Returns the failed logins of a name."""
        return _failures(await self._store.get(self.path(mount, name)))

    async def locked(self, mount: MountContext, name: str, now: float) -> bool:
        """Whether a name may not try now."""
        return self.rule(mount).locked(await self.failures(mount, name), now)

    async def count(self, mount: MountContext, name: str, now: float) -> None:
        """Counts a failed login, exactly, however many come at once."""
        rule = self.rule(mount)

        async def one_more(entry: Entry | None) -> bytes:
            return msgspec.msgpack.encode(rule.counted(_failures(entry), now))

        await change(self._store, self.path(mount, name), one_more, self._attempts * 10)

    async def forget(self, mount: MountContext, name: str) -> None:
        """Forgets failed logins, because an operator says so."""
        await self._store.commit(Transaction(deletes=[self.path(mount, name)]))

    async def names(self, mount: MountContext, now: float) -> list[str]:
        """Returns the names of a mount that are locked now, sorted."""
        rule = self.rule(mount)
        entries = await self._store.scan((self._method, Plain(mount.uuid), Plain("f")))
        return sorted(
            str(entry.path[-1]) for entry in entries if rule.locked(_failures(entry), now)
        )

    async def sweep(self, now: float) -> None:
        """Removes failed logins that are of no more use. May be repeated, by any replica."""
        for mount in await self._store.folders((self._method,)):
            after: Path | None = None
            prefix = (self._method, Plain(mount), Plain("f"))
            while entries := await self._store.scan(
                prefix, after=after, limit=_PAGE, past_unreadable=True
            ):
                after = entries[-1].path
                ended: dict[Path, int] = {}
                for entry in entries:
                    with going_past(self._store, entry.path):
                        if _ended(entry, now):
                            ended[entry.path] = entry.revision
                # Where one failed again meanwhile, the next sweep comes.
                with contextlib.suppress(ConflictError):
                    if ended:
                        await self._store.commit(Transaction(expect=ended, deletes=list(ended)))

    def path(self, mount: MountContext, name: str) -> Path:
        """Returns where the failed logins of a name are, which one that succeeds removes with what else it does."""
        return (self._method, Plain(mount.uuid), Plain("f"), name)


def _ended(entry: Entry, now: float) -> bool:
    failures = _failures(entry)
    return failures is not None and now > (failures.ends or failures.last + _OLD_SECONDS)


def _failures(entry: Entry | None) -> Failures | None:
    return msgspec.msgpack.decode(entry.value, type=Failures) if entry is not None else None

"""Where users are kept, and how failed logins are counted.

userpass/<mount>/u/<name>       the user
userpass/<mount>/f/<name>       failed logins, of names without a user as well
"""

import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from strongroom_auth.config import Config
from strongroom_auth.settings import Settings
from strongroom_auth.tokens.tokens import conflict
from strongroom_runtime.context import MountContext
from strongroom_runtime.durations import parse_seconds
from strongroom_runtime.errors import invalid
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction

_USERPASS = Plain("userpass")
_PAGE = 100


class User(msgspec.Struct, frozen=True):
    """A user; `password` is a bcrypt hash."""

    password: bytes
    settings: Settings = Settings()

    def __repr__(self) -> str:
        return "User(…)"


class Failures(msgspec.Struct, frozen=True):
    """Failed logins since the last success: how many, and when the last one was."""

    count: int
    last: float


class Lockout(msgspec.Struct, frozen=True):
    """When a user is locked; 0 failures for never."""

    threshold: int
    seconds: int
    reset_seconds: int

    def locked(self, failures: Failures | None, now: float) -> bool:
        """Whether a user may not try now."""
        if failures is None or not self.threshold or failures.count < self.threshold:
            return False
        return now < failures.last + self.seconds

    def counted(self, failures: Failures | None, now: float) -> Failures:
        """Returns the failures with one more; old ones are forgotten."""
        stale = failures is None or now > failures.last + self.reset_seconds
        return Failures(1 if failures is None or stale else failures.count + 1, now)


class Users:
    """The users of all mounts."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._attempts = config.attempts
        self._lockout = Lockout(
            config.lockout_threshold, config.lockout_seconds, config.lockout_reset_seconds
        )

    async def get(self, mount: str, name: str) -> User | None:
        """Returns a user."""
        entry = await self._store.get(_user(mount, name))
        return msgspec.msgpack.decode(entry.value, type=User) if entry else None

    async def names(self, mount: str) -> list[str]:
        """Returns the names of all users, sorted."""
        return [n for n, _ in await self._store.children((_USERPASS, Plain(mount), Plain("u")))]

    async def change(
        self, mount: str, name: str, change: Callable[[User | None], Awaitable[User]]
    ) -> None:
        """Replaces a user by what a function makes of it; it is asked again where another was faster."""
        path = _user(mount, name)
        for _ in range(self._attempts):
            entry = await self._store.get(path)
            before = msgspec.msgpack.decode(entry.value, type=User) if entry else None
            after = msgspec.msgpack.encode(await change(before))
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(expect={path: entry.revision if entry else 0}, puts={path: after})
                )
                return
        raise conflict()

    async def delete(self, mount: str, name: str) -> None:
        """Removes a user."""
        await self._store.commit(Transaction(deletes=[_user(mount, name)]))

    def lockout(self, mount: MountContext) -> Lockout:
        """Returns when users of a mount are locked: as it was tuned, or as configured."""
        tuned = msgspec.json.decode(mount.config) if mount.config else {}
        given = tuned.get("user_lockout_config") if isinstance(tuned, dict) else None
        if not isinstance(given, dict):
            return self._lockout
        if given.get("lockout_disable"):
            return Lockout(0, 0, 0)
        default = self._lockout
        return Lockout(
            int(given.get("lockout_threshold") or default.threshold),
            parse_seconds(given.get("lockout_duration") or default.seconds),
            parse_seconds(given.get("lockout_counter_reset") or default.reset_seconds),
        )

    async def failures(self, mount: str, name: str) -> Failures | None:
        """Returns the failed logins of a name."""
        entry = await self._store.get(_failures(mount, name))
        return msgspec.msgpack.decode(entry.value, type=Failures) if entry else None

    async def count_failure(self, mount: str, name: str, lockout: Lockout, now: float) -> None:
        """Counts a failed login, exactly, however many come at once."""
        path = _failures(mount, name)
        for _ in range(self._attempts * 10):
            entry = await self._store.get(path)
            before = msgspec.msgpack.decode(entry.value, type=Failures) if entry else None
            after = msgspec.msgpack.encode(lockout.counted(before, now))
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(expect={path: entry.revision if entry else 0}, puts={path: after})
                )
                return
        raise conflict()

    async def forget_failures(self, mount: str, name: str) -> None:
        """Forgets failed logins after a success."""
        await self._store.commit(Transaction(deletes=[_failures(mount, name)]))

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount; may be repeated."""
        while entries := await self._store.scan((_USERPASS, Plain(mount)), limit=_PAGE):
            await self._store.commit(Transaction(deletes=[entry.path for entry in entries]))


def _user(mount: str, name: str) -> Path:
    if not name:
        raise invalid("username: must not be empty")
    return (_USERPASS, Plain(mount), Plain("u"), name)


def _failures(mount: str, name: str) -> Path:
    return (_USERPASS, Plain(mount), Plain("f"), name)

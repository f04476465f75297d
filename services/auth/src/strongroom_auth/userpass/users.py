"""Where users are kept.

userpass/<mount>/u/<name>       the user
userpass/<mount>/f/<name>       failed logins (`lockout`), of names without a user as well
"""

from collections.abc import Awaitable, Callable

import msgspec

from strongroom_auth import changes
from strongroom_auth.config import Config
from strongroom_auth.settings import Settings
from strongroom_runtime.errors import invalid
from strongroom_runtime.storage import Entry, Path, Plain, Store, Transaction

_USERPASS = Plain("userpass")


class User(msgspec.Struct, frozen=True):
    """A user; `password` is a bcrypt hash."""

    password: bytes
    settings: Settings = Settings()

    def __repr__(self) -> str:
        return "User(…)"


class Users:
    """The users of all mounts."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._attempts = config.attempts

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

        async def changed(entry: Entry | None) -> bytes:
            before = msgspec.msgpack.decode(entry.value, type=User) if entry else None
            return msgspec.msgpack.encode(await change(before))

        await changes.change(self._store, _user(mount, name), changed, self._attempts)

    async def delete(self, mount: str, name: str) -> None:
        """Removes a user."""
        await self._store.commit(Transaction(deletes=[_user(mount, name)]))

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount; may be repeated."""
        await self._store.clear((_USERPASS, Plain(mount)))


def _user(mount: str, name: str) -> Path:
    if not name:
        raise invalid("username: must not be empty")
    return (_USERPASS, Plain(mount), Plain("u"), name)

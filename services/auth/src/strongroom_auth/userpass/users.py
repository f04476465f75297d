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
from strongroom_runtime.mount_marks import check_there, gone_path
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
        self.store = store
        self._attempts = config.attempts

    async def get(self, mount: str, name: str) -> tuple[User, int] | None:
        """Returns a user and the revision of its record."""
        entry = await self.store.get(user_path(mount, name))
        return (msgspec.msgpack.decode(entry.value, type=User), entry.revision) if entry else None

    async def names(self, mount: str) -> list[str]:
        """Returns the names of all users, sorted."""
        return [n for n, _ in await self.store.children((_USERPASS, Plain(mount), Plain("u")))]

    async def change(
        self, mount: str, name: str, change: Callable[[User | None], Awaitable[User]]
    ) -> None:
        """Replaces a user by what a function makes of it; it is asked again where another was faster.

        Raises:
            ServiceError: NOT_FOUND where the mount was disabled; what the function raises; CONFLICT.
        """
        path = user_path(mount, name)

        async def changed(entry: Entry | None) -> Transaction:
            await check_there(self.store, mount)
            before = msgspec.msgpack.decode(entry.value, type=User) if entry else None
            after = msgspec.msgpack.encode(await change(before))
            return Transaction(expect={gone_path(mount): 0}, puts={path: after})

        await changes.change_with(self.store, path, changed, self._attempts)

    async def delete(self, mount: str, name: str) -> None:
        """Removes a user."""
        await self.store.commit(Transaction(deletes=[user_path(mount, name)]))

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount; may be repeated."""
        await self.store.clear((_USERPASS, Plain(mount)))


def user_path(mount: str, name: str) -> Path:
    """Returns where a user is."""
    if not name:
        raise invalid("username: must not be empty")
    return (_USERPASS, Plain(mount), Plain("u"), name)

"""Where users are kept.

userpass/<mount>/u/<name>       the user
userpass/<mount>/f/<name>       failed logins (`lockout`), of names without a user as well
"""

import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from strongroom_auth.config import Config
from strongroom_auth.settings import Settings
from strongroom_auth.tokens.tokens import conflict
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

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount; may be repeated."""
        while entries := await self._store.scan((_USERPASS, Plain(mount)), limit=_PAGE):
            await self._store.commit(Transaction(deletes=[entry.path for entry in entries]))


def _user(mount: str, name: str) -> Path:
    if not name:
        raise invalid("username: must not be empty")
    return (_USERPASS, Plain(mount), Plain("u"), name)

"""Where connections and roles are kept.

config/<mount>/<name>       a connection
role/<mount>/<name>         a role
gone/<mount>                the mount was disabled: nothing is kept of it any more
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec

from strongroom_dbcreds.records import Connection, Role
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction

_GONE = Plain("gone")
_PAGE = 100

T = TypeVar("T")


class Named(Generic[T]):
    """Records of a mount by name."""

    def __init__(self, store: Store, kind: str, record: type[T], attempts: int) -> None:
        self._store = store
        self._kind = Plain(kind)
        self._attempts = attempts
        self._decode = msgspec.msgpack.Decoder(record).decode

    async def get(self, mount: str, name: str) -> tuple[T, int] | None:
        """Returns a record and its revision."""
        entry = await self._store.get(self._path(mount, name))
        return (self._decode(entry.value), entry.revision) if entry is not None else None

    async def names(self, mount: str) -> list[str]:
        """Returns the names of a mount's records, sorted."""
        return [name for name, _ in await self._store.children((self._kind, Plain(mount)))]

    async def change(
        self, mount: str, name: str, change: Callable[[T | None], Awaitable[T]]
    ) -> None:
        """Replaces a record by what a function makes of it; asked again after a lost race.

        Raises:
            ServiceError: what the function raises; NOT_FOUND where the mount is gone; CONFLICT.
        """
        path, gone = self._path(mount, name), gone_path(mount)
        for _ in range(self._attempts):
            entry = await self._store.get(path)
            after = await change(self._decode(entry.value) if entry is not None else None)
            expect = {path: entry.revision if entry is not None else 0, gone: 0}
            try:
                await self._store.commit(
                    Transaction(expect=expect, puts={path: msgspec.msgpack.encode(after)})
                )
                return
            except ConflictError:
                if await is_gone(self._store, mount):
                    raise ServiceError(Kind.NOT_FOUND, "the mount was disabled") from None
        raise ServiceError(Kind.CONFLICT, "others write the same record all the time; try again")

    async def delete(self, mount: str, name: str) -> None:
        """Removes a record; not an error where there is none."""
        await self._store.commit(Transaction(deletes=[self._path(mount, name)]))

    async def drop(self, mount: str) -> None:
        """Removes all records of a mount."""
        prefix = (self._kind, Plain(mount))
        while entries := await self._store.scan(prefix, limit=_PAGE):
            await self._store.commit(Transaction(deletes=[entry.path for entry in entries]))

    def _path(self, mount: str, name: str) -> Path:
        return (self._kind, Plain(mount), name)


def connections(store: Store, attempts: int) -> Named[Connection]:
    """Returns the connections of all mounts."""
    return Named(store, "config", Connection, attempts)


def roles(store: Store, attempts: int) -> Named[Role]:
    """Returns the roles of all mounts."""
    return Named(store, "role", Role, attempts)


def gone_path(mount: str) -> Path:
    """Returns what marks a mount as disabled. Whatever is written for a mount expects that it is absent."""
    return (_GONE, Plain(mount))


async def is_gone(store: Store, mount: str) -> bool:
    """Returns whether a mount was disabled."""
    return await store.get(gone_path(mount)) is not None


async def mark_gone(store: Store, mount: str) -> None:
    """Marks a mount as disabled, for ever: nothing can be written for it any more."""
    if not await is_gone(store, mount):
        await store.commit(Transaction(puts={gone_path(mount): b""}))

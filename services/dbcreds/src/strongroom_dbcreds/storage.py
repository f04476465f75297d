"""Where connections and roles are kept.

config/<mount>/<name>                a connection
role/<mount>/<name>                  a role
static/<mount>/<name>                a static role
rotation/<time>/<kind>/<mount>/<name>  when a password is to be changed, in milliseconds; <kind> as above
gone/<mount>, moved/<mount>          as `mount_marks` says
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import msgspec

from strongroom_dbcreds.domain.rotations import Account
from strongroom_dbcreds.records import Connection, Role, StaticRole
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.mount_marks import check_there, gone_path
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction
from strongroom_runtime.time_index import Rest, all_due

_ROTATION = Plain("rotation")
CONFIG, ROLE, STATIC = "config", "role", "static"
_PAGE = 50

T = TypeVar("T")


class Named(Generic[T]):
    """Records of a mount by name.

    Args:
        store: where they are.
        kind: how their paths begin.
        record: their type.
        attempts: how often a write that lost a race is decided anew.
        account: the part of a record that says when its password is to be changed, which the index of due changes
            follows in the same transaction; None where records have no such part.
        rival: the kind of record that a new one cannot share its name with; empty for none.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        record: type[T],
        attempts: int,
        account: Callable[[T], Account] | None = None,
        rival: str = "",
    ) -> None:
        self._account = account
        self._rival = Plain(rival)
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
            ServiceError: what the function raises; INVALID where a rival has the name; NOT_FOUND where the mount is
                gone; CONFLICT.
        """
        path, gone = self._path(mount, name), gone_path(mount)
        for _ in range(self._attempts):
            entry = await self._store.get(path)
            before = self._decode(entry.value) if entry is not None else None
            after = await change(before)
            expect = {path: entry.revision if entry is not None else 0, gone: 0}
            if entry is None and self._rival:
                expect |= await self._unrivalled(mount, name)
            try:
                old, new = self._index(mount, name, before), self._index(mount, name, after)
                await self._store.commit(
                    Transaction(
                        expect=expect,
                        puts={path: msgspec.msgpack.encode(after), **dict.fromkeys(new - old, b"")},
                        deletes=sorted(old - new),
                    )
                )
                return
            except ConflictError:
                await check_there(self._store, mount)
        raise ServiceError(Kind.CONFLICT, "others write the same record all the time; try again")

    async def _unrivalled(self, mount: str, name: str) -> dict[Path, int]:
        """Returns what must hold so that no rival has a name."""
        rival: Path = (self._rival, Plain(mount), name)
        if await self._store.get(rival) is not None:
            raise invalid("name: role and static role names of a mount must be unique")
        return {rival: 0}

    async def delete(
        self, mount: str, name: str, check: Callable[[T], None] = lambda _: None
    ) -> None:
        """Removes a record; not an error where there is none.

        Raises:
            Exception: what `check` raises of the record as it stands.
            ServiceError: CONFLICT.
        """
        path = self._path(mount, name)
        for _ in range(self._attempts):
            entry = await self._store.get(path)
            if entry is None:
                return
            record = self._decode(entry.value)
            check(record)
            index = self._index(mount, name, record)
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(expect={path: entry.revision}, deletes=[path, *sorted(index)])
                )
                return
        raise ServiceError(Kind.CONFLICT, "others write the same record all the time; try again")

    async def drop(self, mount: str) -> None:
        """Removes all records of a mount."""
        prefix = (self._kind, Plain(mount))
        while entries := await self._store.scan(prefix, limit=_PAGE):
            deletes = [entry.path for entry in entries]
            for entry in entries:
                deletes += self._index(mount, entry.path[-1], self._decode(entry.value))
            await self._store.commit(Transaction(deletes=deletes))

    def _index(self, mount: str, name: str, record: T | None) -> set[Path]:
        due = self._account(record).due if self._account and record is not None else 0.0
        if not due:
            return set()
        return {(_ROTATION, Plain(f"{round(due * 1000):015}"), self._kind, Plain(mount), name)}

    def _path(self, mount: str, name: str) -> Path:
        return (self._kind, Plain(mount), name)


def connections(store: Store, attempts: int) -> Named[Connection]:
    """Returns the connections of all mounts."""
    return Named(store, CONFIG, Connection, attempts, lambda record: record.account)


def roles(store: Store, attempts: int) -> Named[Role]:
    """Returns the roles of all mounts."""
    return Named(store, ROLE, Role, attempts, rival=STATIC)


def static_roles(store: Store, attempts: int) -> Named[StaticRole]:
    """Returns the static roles of all mounts."""
    return Named(store, STATIC, StaticRole, attempts, lambda record: record.account, ROLE)


def rest_of_rotations(store: Store) -> Rest:
    """Returns what spares looks for passwords that are to be changed."""
    return Rest(store, (_ROTATION,), 15, per_second=1000)


async def due_rotations(
    store: Store, now: float, rest: Rest | None = None
) -> AsyncIterator[tuple[Path, str, str, str]]:
    """Yields the passwords that are to be changed, the longest due first: entry, kind of record, mount and name."""
    async for entry in all_due(store, (_ROTATION,), 15, 3, int(now * 1000), rest):
        yield entry.path, str(entry.path[2]), str(entry.path[3]), str(entry.path[4])

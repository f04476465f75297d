"""Where keys are kept, and how one is changed in one transaction.

k/<mount>/<name>              a key: its settings
v/<mount>/<uuid>/<version>    one version of it, written with the settings that first name it and never before
due/<time>/<mount>/<name>     when a key is to be rotated: in the same transaction as its settings
c/<mount>                     the mount's settings
w/<mount>                     the mount's wrapping key, by which keys are imported
begun/<mount>/<uuid>          versions are being written that no settings name yet
gone/<mount>                  as `mount_marks` says
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.locks import KeyedLocks
from strongroom_runtime.mount_marks import check_there, gone_path, mark_gone
from strongroom_runtime.storage import (
    MAX_OPERATIONS,
    ConflictError,
    Entry,
    Path,
    Plain,
    Store,
    Transaction,
)
from strongroom_runtime.time_index import TimeIndex
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset
from strongroom_transit.domain.material import Loaded, Version

_KEYS, _VERSIONS, _DUE = Plain("k"), Plain("v"), Plain("due")
_CONFIGS, _WRAPPING = Plain("c"), Plain("w")
_BEGUN = Plain("begun")
_PAGE = 100
# That are kept ready, of at most so many versions: the versions that a batch names are its caller's choice.
_KEYSETS, _KEPT_VERSIONS = 5_000, 16

_decode_key = msgspec.msgpack.Decoder(Key).decode
_decode_version = msgspec.msgpack.Decoder(Version).decode
_encode = msgspec.msgpack.encode


class MountConfig(msgspec.Struct, frozen=True):
    """A mount's settings: whether encrypting makes no keys, and what clients call the size of the cache."""

    disable_upsert: bool = False
    cache_size: int = 0


_decode_config = msgspec.msgpack.Decoder(MountConfig).decode


@dataclass(slots=True)
class Change:
    """What becomes of a key: its settings (None removes it) and versions to put.

    `staged` is the revision of the record that its versions are being written, where they were before.
    """

    key: Key | None
    versions: dict[int, Version] = field(default_factory=dict)
    staged: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """Versions that are being written under a uuid that no settings name: of a mount, since a revision."""

    mount: str
    uuid: str
    revision: int


Decide = Callable[[Key | None], Awaitable[Change | None]]


class Keys:
    """The keys of all mounts."""

    def __init__(self, store: Store, attempts: int) -> None:
        self._store = store
        self._attempts = attempts
        self._locks = KeyedLocks()
        self._due = TimeIndex(store, (_DUE,), digits=12, behind=2)

    async def get(self, mount: str, name: str, *, linearizable: bool = False) -> Key | None:
        """Returns a key's settings, from memory where those are certain to be current."""
        entry = await self._store.get(_key(mount, name), linearizable=linearizable)
        return _key_of(entry) if entry is not None else None

    async def keyset(
        self, mount: str, name: str, versions: Iterable[int], *, linearizable: bool = False
    ) -> Keyset | None:
        """Returns a key with some of its versions, or None where there is none.

        Args:
            mount: its uuid.
            name: of the key.
            versions: those that are needed; 0 stands for the newest. Those that do not exist are left out. One
                newer than what memory knows is looked for in etcd before that is believed.
            linearizable: reads through to etcd.
        """
        wanted = frozenset(versions)
        kept = not linearizable and len(wanted) <= _KEPT_VERSIONS
        made = self._store.made() if kept else None
        if made is None:
            return await self._keyset(mount, name, wanted, linearizable=linearizable)
        of = (mount, name, wanted)
        known: Keyset | None = made.get(of)
        if known is not None:
            return known
        found = await self._keyset(mount, name, wanted, linearizable=False)
        if found is not None:
            if len(made) >= _KEYSETS:
                made.clear()
            made[of] = found
        return found

    async def _keyset(
        self, mount: str, name: str, wanted: frozenset[int], *, linearizable: bool
    ) -> Keyset | None:
        key = await self.get(mount, name, linearizable=linearizable)
        if not linearizable and (key is None or max(wanted, default=0) > key.latest):
            key = await self.get(mount, name, linearizable=True)
        if key is None:
            return None
        found: dict[int, Loaded] = {}
        for number in wanted:
            version = number or key.latest
            if key.oldest <= version <= key.latest:
                loaded = await self._loaded(mount, key, version)
                if loaded is not None:
                    found[version] = loaded
                elif not linearizable:
                    # The key was replaced or trimmed since its settings were read.
                    return await self._keyset(mount, name, wanted, linearizable=True)
        return Keyset(key, found)

    async def all_versions(self, mount: str, key: Key, first: int = 0) -> dict[int, Version]:
        """Returns the versions of a key from one on, by number."""
        prefix = (_VERSIONS, Plain(mount), Plain(key.uuid))
        start = max(first, key.oldest) - 1
        after = (*prefix, _number(start)) if start else None
        entries = await self._store.scan(prefix, after=after)
        return {int(entry.path[-1]): _decode_version(entry.value) for entry in entries}

    async def names(self, mount: str) -> list[str]:
        """Returns the names of a mount's keys, sorted."""
        return [name for name, _ in await self._store.children((_KEYS, Plain(mount)))]

    async def change(self, mount: str, name: str, decide: Decide) -> Key | None:
        """Changes a key in one transaction; returns it as it is then.

        `decide` gets the settings as they are and says what becomes of them (None: nothing). It is asked again where
        another writer was faster, so what it decided on holds at the moment of the write.

        Raises:
            ServiceError: what `decide` raises; NOT_FOUND where the mount is gone; CONFLICT where others were faster
                every time.
        """
        path = _key(mount, name)
        async with self._locks.hold(path):
            for attempt in range(self._attempts):
                # What memory has may be what just lost: the second attempt asks etcd.
                entry = await self._store.get(path, linearizable=attempt > 0)
                before = _key_of(entry) if entry is not None else None
                change = await decide(before)
                if change is None:
                    return before
                transaction = _transaction(mount, name, entry, before, change)
                try:
                    await self._store.commit(transaction)
                except ConflictError:
                    await check_there(self._store, mount)
                    continue
                return change.key
        raise ServiceError(Kind.CONFLICT, "others change the same key all the time; try again")

    async def put(
        self, mount: str, name: str, key: Key, versions: dict[int, Version], *, replace: bool
    ) -> None:
        """Puts a whole key with any number of versions.

        More than a transaction holds go first, under a uuid that nothing names, behind a record that says so; the
        settings follow in one transaction, which takes that record away, and the key that was there. What a crash
        leaves in between `undo` removes.

        Raises:
            ServiceError: INVALID where there is one of that name and `replace` is not set; NOT_FOUND; CONFLICT.
        """
        if len(versions) <= _PAGE:

            async def whole(before: Key | None) -> Change:
                _check_replaces(before, replace=replace)
                return Change(key, versions)

            await self.change(mount, name, whole)
            return
        begun = await self._begin(mount, key.uuid)

        async def named(before: Key | None) -> Change:
            _check_replaces(before, replace=replace)
            if await self._store.get(_begun(begun)) is None:
                raise _too_slow()
            return Change(key, staged=begun.revision)

        try:
            await self._stage(begun, versions)
            await self.change(mount, name, named)
        except ServiceError as error:
            if error.kind is not Kind.UNAVAILABLE:
                await self.undo(begun)
            raise

    async def begun(self) -> list[Begun]:
        """Returns what is being written under uuids that no settings name, or was when somebody died."""
        entries = await self._store.scan((_BEGUN,), limit=_PAGE)
        return [Begun(e.path[1], e.path[2], e.revision) for e in entries]

    async def undo(self, begun: Begun) -> bool:
        """Removes versions that no settings name; returns False, and removes nothing, where some do by now.

        Whoever is still writing them finds the record gone, and gives up.
        """
        versions = (_VERSIONS, Plain(begun.mount), Plain(begun.uuid))
        try:
            await self._store.commit(
                Transaction(
                    expect={_begun(begun): begun.revision},
                    deletes=[_begun(begun)],
                    delete_prefixes=[versions],
                )
            )
        except ConflictError:
            return False
        return True

    async def trim(self, mount: str, key: Key, first: int) -> None:
        """Removes the versions before one, which the settings no longer name; repeated, it goes on."""
        prefix = (_VERSIONS, Plain(mount), Plain(key.uuid))
        while entries := await self._store.scan(prefix, limit=_PAGE):
            old = [entry.path for entry in entries if int(entry.path[-1]) < first]
            if old:
                await self._store.commit(Transaction(deletes=old))
            if len(old) < len(entries):
                return

    async def replace_version(
        self, mount: str, name: str, number: int, change: Callable[[Key, Version], Version]
    ) -> None:
        """Changes one version of a key, with what the change rests on as it was decided.

        Raises:
            ServiceError: NOT_FOUND; what `change` raises; CONFLICT.
        """
        for attempt in range(self._attempts):
            at = await self._store.get(_key(mount, name), linearizable=attempt > 0)
            if at is None:
                raise ServiceError(Kind.NOT_FOUND)
            key = _key_of(at)
            path = _version(mount, key.uuid, number)
            entry = await self._store.get(path, linearizable=attempt > 0)
            if entry is None:
                raise ServiceError(Kind.INVALID, "version: there is no such key version")
            after = change(key, _decode_version(entry.value))
            try:
                await self._store.commit(
                    Transaction(
                        expect={at.path: at.revision, path: entry.revision},
                        puts={path: _encode(after)},
                    )
                )
                return
            except ConflictError:
                continue
        raise ServiceError(Kind.CONFLICT, "others change the same key all the time; try again")

    async def due(
        self, before: float
    ) -> list[tuple[str, str, contextlib.AbstractContextManager[None]]]:
        """Returns mounts and names of keys that were to be rotated before a time, the longest overdue first.

        Each with what the work on it belongs within: where a key does not open, the error goes no further.
        """
        return [
            (e.path[2], e.path[3], self._due.going_past(e.path))
            for e in await self._due.due(before, _PAGE)
        ]

    async def config(self, mount: str) -> MountConfig:
        """Returns a mount's settings."""
        entry = await self._store.get((_CONFIGS, Plain(mount)))
        return _decode_config(entry.value) if entry is not None else MountConfig()

    async def change_config(
        self, mount: str, change: Callable[[MountConfig], MountConfig]
    ) -> MountConfig:
        """Replaces a mount's settings by what a function makes of them.

        Raises:
            ServiceError: NOT_FOUND where the mount is gone; CONFLICT.
        """
        path: Path = (_CONFIGS, Plain(mount))
        for _ in range(self._attempts):
            entry = await self._store.get(path)
            after = change(_decode_config(entry.value) if entry is not None else MountConfig())
            if await self._put(path, entry, _encode(after), mount):
                return after
        raise ServiceError(Kind.CONFLICT, "others write the same settings all the time; try again")

    async def wrapping_key(self, mount: str, make: Callable[[], bytes]) -> bytes:
        """Returns a mount's wrapping key, made on its first use; all replicas use one.

        Raises:
            ServiceError: NOT_FOUND where the mount is gone; CONFLICT.
        """
        path: Path = (_WRAPPING, Plain(mount))
        async with self._locks.hold(path):
            entry = await self._store.get(path)
            if entry is not None:
                return entry.value
            made = await asyncio.to_thread(make)
            if await self._put(path, None, made, mount):
                return made
            entry = await self._store.get(path, linearizable=True)
        if entry is None:
            raise ServiceError(Kind.CONFLICT, "the wrapping key is being made; try again")
        return entry.value

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount; repeated after a crash, it goes on where it stopped."""
        await mark_gone(self._store, mount)
        while entries := await self._store.scan((_KEYS, Plain(mount)), limit=_PAGE // 2):
            due = [p for e in entries for p in _due(mount, e.path[-1], _key_of(e))]
            await self._store.commit(Transaction(deletes=[e.path for e in entries] + due))
        await self._store.clear((_BEGUN, Plain(mount)))
        await self._store.clear((_VERSIONS, Plain(mount)))
        await self._store.commit(
            Transaction(deletes=[(_CONFIGS, Plain(mount)), (_WRAPPING, Plain(mount))])
        )

    async def _begin(self, mount: str, uuid: str) -> Begun:
        """Records that versions are being written under a uuid that no settings name."""
        path = _begun(Begun(mount, uuid, 0))
        try:
            revision = await self._store.commit(
                Transaction(expect={path: 0, gone_path(mount): 0}, puts={path: b""})
            )
        except ConflictError:
            await check_there(self._store, mount)
            raise ServiceError(Kind.CONFLICT, "the key could not be put") from None
        return Begun(mount, uuid, revision)

    async def _stage(self, begun: Begun, versions: dict[int, Version]) -> None:
        numbers = sorted(versions)
        for at in range(0, len(numbers), _PAGE):
            puts = {
                _version(begun.mount, begun.uuid, n): _encode(versions[n])
                for n in numbers[at : at + _PAGE]
            }
            expect = {gone_path(begun.mount): 0, _begun(begun): begun.revision}
            try:
                await self._store.commit(Transaction(expect=expect, puts=puts))
            except ConflictError:
                await check_there(self._store, begun.mount)
                raise _too_slow() from None

    async def _loaded(self, mount: str, key: Key, version: int) -> Loaded | None:
        entry = await self._store.get(_version(mount, key.uuid, version))
        if entry is None:
            return None
        # Kept with the entry: it goes when the version changes, when memory is short and when the process is sealed.
        if entry.made is None:
            entry.made = Loaded(
                key.kind,
                _decode_version(entry.value),
                derived=key.derived,
                convergent=key.convergent,
                counter_kdf=key.counter_kdf,
            )
        loaded: Loaded = entry.made
        return loaded

    async def _put(self, path: Path, entry: Entry | None, value: bytes, mount: str) -> bool:
        expect = {path: entry.revision if entry is not None else 0, gone_path(mount): 0}
        try:
            await self._store.commit(Transaction(expect=expect, puts={path: value}))
        except ConflictError:
            await check_there(self._store, mount)
            return False
        return True


def _transaction(
    mount: str, name: str, entry: Entry | None, before: Key | None, change: Change
) -> Transaction:
    path, after = _key(mount, name), change.key
    transaction = Transaction(expect={path: entry.revision if entry else 0, gone_path(mount): 0})
    old = _due(mount, name, before) if before is not None else []
    new = _due(mount, name, after) if after is not None else []
    transaction.deletes = [each for each in old if each not in new]
    if after is None:
        transaction.deletes.append(path)
        if before is not None:
            transaction.delete_prefixes.append((_VERSIONS, Plain(mount), Plain(before.uuid)))
        return transaction
    if change.staged:
        begun = _begun(Begun(mount, after.uuid, change.staged))
        transaction.expect[begun] = change.staged
        transaction.deletes.append(begun)
    if before is not None and before.uuid != after.uuid:
        transaction.delete_prefixes.append((_VERSIONS, Plain(mount), Plain(before.uuid)))
    if len(change.versions) + 4 > MAX_OPERATIONS:
        raise ServiceError(Kind.TOO_LARGE, "too many versions for one transaction")
    transaction.puts[path] = _encode(after)
    transaction.puts |= {each: b"" for each in new if each not in old}
    for number, version in change.versions.items():
        transaction.puts[_version(mount, after.uuid, number)] = _encode(version)
    return transaction


def _check_replaces(before: Key | None, *, replace: bool) -> None:
    if before is not None and not replace:
        raise ServiceError(Kind.INVALID, "name: a key of that name already exists")


def _too_slow() -> ServiceError:
    return ServiceError(
        Kind.CONFLICT, "the key took too long to write, and was given up; try again"
    )


def _key_of(entry: Entry) -> Key:
    if entry.made is None:
        entry.made = _decode_key(entry.value)
    key: Key = entry.made
    return key


def _key(mount: str, name: str) -> Path:
    return (_KEYS, Plain(mount), name)


def _version(mount: str, uuid: str, number: int) -> Path:
    return (_VERSIONS, Plain(mount), Plain(uuid), _number(number))


def _number(number: int) -> Plain:
    return Plain(f"{number:010}")


def _due(mount: str, name: str, key: Key) -> list[Path]:
    if not key.rotate_at or key.soft_deleted:
        return []
    return [(_DUE, Plain(f"{int(key.rotate_at):012}"), Plain(mount), name)]


def _begun(begun: Begun) -> Path:
    return (_BEGUN, Plain(begun.mount), Plain(begun.uuid))

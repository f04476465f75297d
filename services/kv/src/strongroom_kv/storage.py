"""Where secrets are kept, and how one is changed in one transaction.

m/<mount>/<segment>/…          the secret: versions and settings
v/<mount>/<path>/<version>     the document of one version; the whole path is one segment, so that a secret
                               named like another's folder cannot collide with its versions
c/<mount>                      the mount's settings
gone/<mount>                   as `mount_marks` says
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from strongroom_kv.domain.versions import MountConfig, Secret
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.locks import KeyedLocks
from strongroom_runtime.mount_marks import check_there, gone_path, mark_gone
from strongroom_runtime.storage import (
    CompactedError,
    ConflictError,
    Entry,
    Path,
    Plain,
    Store,
    Transaction,
)

_SECRETS, _DOCUMENTS, _CONFIGS = Plain("m"), Plain("v"), Plain("c")
MOST_REMOVED = 100  # versions whose documents go one by one in a transaction

_decode_secret = msgspec.msgpack.Decoder(Secret).decode
_decode_config = msgspec.msgpack.Decoder(MountConfig).decode
_encode = msgspec.msgpack.encode


@dataclass(slots=True)
class Change:
    """What becomes of a secret: its new record (None removes it), documents to put and to remove.

    At most MOST_REMOVED are removed, or the oldest that there are, in order: those may be any number.
    """

    secret: Secret | None
    documents: dict[int, bytes] = field(default_factory=dict)
    removed: list[int] = field(default_factory=list)


Decide = Callable[[Secret | None], Awaitable[Change | None]]


class Secrets:
    """The secrets of all mounts."""

    def __init__(self, store: Store, attempts: int) -> None:
        self._store = store
        self._attempts = attempts
        self._locks = KeyedLocks()

    async def read(self, mount: str, path: str, *, linearizable: bool = False) -> Secret | None:
        """Returns a secret's record."""
        entry = await self._store.get(_secret(mount, path), linearizable=linearizable)
        return secret_in(entry) if entry is not None else None

    async def document(
        self, mount: str, path: str, version: int, *, linearizable: bool = False
    ) -> Entry | None:
        """Returns the document of a version: its value, byte for byte."""
        return await self._store.get(_document(mount, path, version), linearizable=linearizable)

    async def config(self, mount: str) -> MountConfig:
        """Returns a mount's settings."""
        entry = await self._store.get((_CONFIGS, Plain(mount)))
        return _decode_config(entry.value) if entry is not None else MountConfig()

    async def change_config(self, mount: str, change: Callable[[MountConfig], MountConfig]) -> None:
        """Replaces a mount's settings by what a function makes of them.

        Raises:
            ServiceError: NOT_FOUND where the mount was disabled; CONFLICT.
        """
        path: Path = (_CONFIGS, Plain(mount))
        for _ in range(self._attempts):
            await check_there(self._store, mount)
            entry = await self._store.get(path)
            before = _decode_config(entry.value) if entry is not None else MountConfig()
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(
                        expect={path: entry.revision if entry else 0, gone_path(mount): 0},
                        puts={path: _encode(change(before))},
                    )
                )
                return
        raise _conflict()

    async def change(self, mount: str, path: str, decide: Decide) -> None:
        """Changes a secret and its documents in one transaction.

        `decide` gets the record as it is and says what becomes of it (None: nothing). It is asked again where another
        writer was faster, so a check of the current version holds at the moment of the write.

        Raises:
            ServiceError: what `decide` raises; NOT_FOUND where the mount was disabled; CONFLICT where others were
                faster every time.
        """
        at = _secret(mount, path)
        # Writers of one secret in one process queue here, instead of failing each other's transactions.
        async with self._locks.hold(at):
            for _ in range(self._attempts):
                entry = await self._store.get(at)
                change = await decide(secret_in(entry) if entry is not None else None)
                if change is None:
                    return
                try:
                    await self._store.commit(_transaction(mount, path, at, entry, change))
                except ConflictError:
                    await check_there(self._store, mount)
                    continue
                return
        raise _conflict()

    async def names(self, mount: str, folder: str) -> list[str]:
        """Returns the names in a folder, sorted; folders end with a slash."""
        children = await self._store.children((_SECRETS, Plain(mount), *_segments(folder)))
        return sorted(name + "/" if is_folder else name for name, is_folder in children)

    async def below(self, mount: str, folder: str) -> dict[str, Entry]:
        """Returns the entries of all secrets below a folder, by their paths relative to it; see `secret_in`."""
        prefix: Path = (_SECRETS, Plain(mount), *_segments(folder))
        entries = await self._store.scan(prefix)
        return {"/".join(entry.path[len(prefix) :]): entry for entry in entries}

    async def spaces(self, after: str, limit: int) -> list[str]:
        """Returns the names of mounts, and of what is kept like one, with secrets; a page of them behind a name."""
        return await self._store.folders((_SECRETS,), after=after, limit=limit)

    async def revision(self) -> int:
        """Returns the store's current revision."""
        return await self._store.revision()

    async def watch(
        self, mount: str, folder: str, from_revision: int
    ) -> AsyncIterator[tuple[int, dict[str, Secret | None]]]:
        """Yields revisions with the secrets below a folder that they changed: by path, None if removed.

        Where none changes, it yields now and then a revision up to which that is so.

        Raises:
            ServiceError: FAILED_PRECONDITION where `from_revision` is forgotten.
        """
        prefix: Path = (_SECRETS, Plain(mount), *_segments(folder))
        try:
            async for changes in self._store.watch(prefix, from_revision=from_revision):
                yield (
                    changes.revision,
                    {
                        "/".join(event.path[2:]): _decode_secret(event.value)
                        if event.value
                        else None
                        for event in changes.events
                    },
                )
        except CompactedError:
            raise ServiceError(
                Kind.FAILED_PRECONDITION,
                "from_revision: its changes are forgotten; list the secrets, and watch from now",
            ) from None

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount that was disabled; repeated after a crash, it goes on where it stopped."""
        # From here on no secret can be made.
        await mark_gone(self._store, mount)
        await self.clear(mount)
        await self._store.commit(Transaction(deletes=[(_CONFIGS, Plain(mount))]))

    async def clear(self, mount: str) -> None:
        """Removes all secrets of a mount; may be repeated."""
        for kind in (_SECRETS, _DOCUMENTS):
            await self._store.clear((kind, Plain(mount)))


def secret_in(entry: Entry) -> Secret:
    """Returns the secret of an entry, decoded once."""
    if entry.made is None:
        entry.made = _decode_secret(entry.value)
    secret: Secret = entry.made
    return secret


def _transaction(
    mount: str, path: str, at: Path, entry: Entry | None, change: Change
) -> Transaction:
    # What there is already goes with its mount, and a change of it with what it expects.
    expect = {at: entry.revision} if entry is not None else {at: 0, gone_path(mount): 0}
    transaction = Transaction(expect=expect)
    if change.secret is None:
        transaction.deletes.append(at)
        transaction.delete_prefixes.append((_DOCUMENTS, Plain(mount), path))
    else:
        transaction.puts[at] = _encode(change.secret)
    for version, document in change.documents.items():
        transaction.puts[_document(mount, path, version)] = document
    if len(change.removed) > MOST_REMOVED:  # the number of versions kept was lowered
        end = _document(mount, path, change.removed[-1] + 1)
        transaction.delete_ranges.append((_document(mount, path, 0), end))
    else:
        transaction.deletes += [_document(mount, path, version) for version in change.removed]
    return transaction


def _secret(mount: str, path: str) -> Path:
    return (_SECRETS, Plain(mount), *_segments(path))


def _document(mount: str, path: str, version: int) -> Path:
    return (_DOCUMENTS, Plain(mount), path, Plain(f"{version:010}"))


def _segments(path: str) -> list[str]:
    return path.split("/") if path else []


def _conflict() -> ServiceError:
    return ServiceError(Kind.CONFLICT, "others write the same secret all the time; try again")

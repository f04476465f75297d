"""A store in memory, with the behaviour of the one over etcd."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import (
    MAX_BYTES,
    MAX_OPERATIONS,
    Changes,
    ConflictError,
    Entry,
    Event,
    Path,
    Plain,
    Transaction,
)


class MemoryReadSet:
    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self._paths: list[Path] = []
        self._as_of = store.current

    async def get(self, path: Path) -> Entry | None:
        self._paths.append(path)
        return await self._store.get(path)

    @property
    def dependencies(self) -> list[bytes]:
        return ["/".join(path).encode() for path in self._paths]

    @property
    def as_of(self) -> int:
        return self._as_of


class MemoryStore:
    """Implements `Store`. `fail_next_commit` makes the next commit raise; what is `broken` does not open.

    `notice` tells watches how far they are, as etcd does where nothing changes.
    """

    def __init__(self) -> None:
        self.current = 1
        self.fail_next_commit: Exception | None = None
        self.broken: set[Path] = set()
        self.noted: list[tuple[Path, str]] = []  # what was gone past, and the type of the error
        self._entries: dict[Path, Entry] = {}
        self._made: tuple[int, dict[Any, Any]] = (0, {})
        self._history: list[Event] = []
        self._changed = asyncio.Event()
        self._noticed = 0
        self.listed = 0  # entries and names that were listed
        self.looks = 0  # how often something was listed, if only nothing

    async def get(self, path: Path, *, linearizable: bool = False) -> Entry | None:
        return self._opened(path)

    def made(self) -> dict[Any, Any] | None:
        if self._made[0] != self.current:
            self._made = (self.current, {})
        return self._made[1]

    async def get_many(self, paths: Sequence[Path]) -> list[Entry | None]:
        assert len(paths) <= MAX_OPERATIONS
        return [self._opened(path) for path in paths]

    async def scan(
        self,
        prefix: Path,
        *,
        after: Path | None = None,
        until: Path | None = None,
        limit: int = 0,
        past_unreadable: bool = False,
    ) -> list[Entry]:
        self.looks += 1
        found = sorted(
            (e for p, e in self._entries.items() if _below(p, prefix)), key=lambda e: _order(e.path)
        )
        if after is not None:
            found = [e for e in found if _order(e.path) > _order(after)]
        if until is not None:
            found = [e for e in found if _order(e.path) < _order(until)]
        if past_unreadable:
            for each in found:
                if each.path in self.broken:
                    self.note_unreadable(each.path, _broken())
            found = [each for each in found if each.path not in self.broken]
        found = found[:limit] if limit else found
        for each in found:
            self._opened(each.path)
        self.listed += len(found)
        return found

    def note_unreadable(self, path: Path, error: BaseException) -> None:
        self.noted.append((path, type(error).__name__))

    def _opened(self, path: Path) -> Entry | None:
        if path in self.broken:
            raise _broken()
        return self._entries.get(path)

    async def count(self, prefix: Path) -> int:
        return sum(_below(path, prefix) for path in self._entries)

    async def children(self, prefix: Path) -> list[tuple[str, bool]]:
        self.looks += 1
        depth = len(prefix)
        found = {(str(p[depth]), len(p) > depth + 1) for p in self._entries if _below(p, prefix)}
        self.listed += len(found)
        return sorted(found)

    async def folders(self, prefix: Path, *, after: str = "", limit: int = 0) -> list[str]:
        names = [name for name, folder in await self.children(prefix) if folder and name > after]
        return names[: limit or None]

    async def clear(self, prefix: Path) -> None:
        if await self.count(prefix):
            await self.commit(Transaction(delete_prefixes=[prefix]))

    async def commit(self, transaction: Transaction) -> int:
        await asyncio.sleep(0)
        transaction.check()
        if self.fail_next_commit is not None:
            error, self.fail_next_commit = self.fail_next_commit, None
            raise error
        size = sum(len(value) for value in transaction.puts.values())
        if (
            max(transaction.operations, len(transaction.expect)) > MAX_OPERATIONS
            or size > MAX_BYTES
        ):
            raise ServiceError(Kind.TOO_LARGE, "the change is too large")
        for path, revision in transaction.expect.items():
            entry = self._entries.get(path)
            if (entry.revision if entry else 0) != revision:
                raise ConflictError
        self.current += 1
        doomed = [p for p in transaction.deletes if p in self._entries]
        for prefix in transaction.delete_prefixes:
            doomed += [p for p in self._entries if _below(p, prefix)]
        for start, end in transaction.delete_ranges:
            doomed += [p for p in self._entries if _order(start) <= _order(p) < _order(end)]
        for path in doomed:
            if self._entries.pop(path, None) is not None:
                self._history.append(Event(path, None, self.current))
        for path, value in transaction.puts.items():
            self._entries[path] = Entry(path, value, self.current)
            self._history.append(Event(path, value, self.current))
        self._wake()
        return self.current

    def notice(self) -> None:
        self._noticed = self.current
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def reads(self, *, linearizable: bool = False) -> MemoryReadSet:
        return MemoryReadSet(self)

    async def watch(self, prefix: Path, *, from_revision: int = 0) -> AsyncIterator[Changes]:
        seen = yielded = from_revision - 1 if from_revision else self.current
        while True:
            changed = self._changed
            fresh: dict[int, list[Event]] = {}
            for event in self._history:
                if event.revision > seen and _below(event.path, prefix):
                    fresh.setdefault(event.revision, []).append(event)
            seen = self.current
            for revision, events in fresh.items():
                yielded = revision
                yield Changes(revision, events)
            if self._noticed > yielded:
                yielded = self._noticed
                yield Changes(yielded, [])
            if self.current == seen:
                await changed.wait()

    async def revision(self) -> int:
        return self.current


def _broken() -> ServiceError:
    return ServiceError(Kind.INTERNAL, "a stored value does not open")


def _order(path: Path) -> list[tuple[bool, str]]:
    """Returns by what paths sort: plain segments before those that the barrier encrypts."""
    return [(not isinstance(segment, Plain), segment) for segment in path]


def _below(path: Path, prefix: Path) -> bool:
    return len(path) > len(prefix) and path[: len(prefix)] == prefix

"""The store as services see it: paths, transactions, cached reads, watches.

The implementation over etcd is `strongroom_runtime.etcd` with the barrier of
`strongroom_runtime.barrier`; `tests/fakes/store.py` has one in memory with the same behaviour, and one
conformance suite runs against both.

A path is a tuple of segments below the service's own prefix. A plain `str` segment is encrypted in the
key (AES-SIV); mark structure, and what must sort, with `Plain`. Values are sealed with the full storage key
as associated data.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from strongroom_runtime.errors import Kind, ServiceError


class Plain(str):
    """A path segment that stands in etcd as it is: structure (`m`, `due`) and sortable times, never names.

    May hold letters, digits, `.`, `-` and `_`.
    """

    __slots__ = ()


Path = tuple[str, ...]

MAX_OPERATIONS = 120  # in one transaction; etcd's default is 128
MAX_BYTES = 1_400_000  # of one transaction; etcd's default is 1.5 MiB


@dataclass(slots=True)
class Entry:
    """One stored value, not to be changed.

    Args:
        path: where it is.
        value: what it is.
        revision: the etcd revision that wrote it last (mod_revision).
        made: what the service that owns it made of it, to be found again while the entry stays in memory. It goes
            with the entry: when the value changes, when memory is short, when the process is sealed.
    """

    path: Path
    value: bytes
    revision: int
    made: Any = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class Transaction:
    """One logical change: all of it happens, or none.

    `expect` maps paths to the revision they must have, 0 for absent. `delete_prefixes` removes all below a
    path, `delete_ranges` all from one path up to before another, in storage order. At most MAX_OPERATIONS
    operations, as many expectations, and MAX_BYTES in all.
    """

    expect: dict[Path, int] = field(default_factory=dict)
    puts: dict[Path, bytes] = field(default_factory=dict)
    deletes: list[Path] = field(default_factory=list)
    delete_prefixes: list[Path] = field(default_factory=list)
    delete_ranges: list[tuple[Path, Path]] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """How many there are."""
        removals = len(self.deletes) + len(self.delete_prefixes) + len(self.delete_ranges)
        return len(self.puts) + removals

    def join(self, other: "Transaction") -> bool:
        """Takes in another change that touches other paths, if both fit into one; returns whether they do."""
        both = (self, other)
        operations = sum(t.operations for t in both)
        if max(operations, sum(len(t.expect) for t in both)) > MAX_OPERATIONS:
            return False
        values = sum(len(value) for t in both for value in t.puts.values())
        if values > MAX_BYTES // 2:  # keys and what encryption adds want room too
            return False
        self.expect |= other.expect
        self.puts |= other.puts
        self.deletes += other.deletes
        self.delete_prefixes += other.delete_prefixes
        self.delete_ranges += other.delete_ranges
        return True

    def check(self) -> None:
        """Raises where the change contradicts itself, which etcd would refuse.

        Raises:
            ValueError: a path is both put and deleted, or deleted twice.
        """
        deletes = set(self.deletes)
        if len(deletes) != len(self.deletes) or deletes & self.puts.keys():
            raise ValueError("a transaction names a path twice")
        for prefix in self.delete_prefixes:
            depth = len(prefix)
            if any(path[:depth] == prefix and len(path) > depth for path in self.puts):
                raise ValueError("a transaction puts what it deletes with a prefix")


class ConflictError(Exception):
    """A transaction found another revision than it expected. Read again and decide again."""


class LaterTermError(ServiceError):
    """A value names a term of the key ring that this process has not heard of; it may be about to."""

    def __init__(self) -> None:
        message = "a stored value is of a later term than the keys that are here; try again"
        super().__init__(Kind.UNAVAILABLE, message)


def unreadable(error: BaseException) -> bool:
    """Returns whether an error says of an entry that it cannot be read, rather than of the store or of a race."""
    if isinstance(error, ServiceError):
        return error.kind is Kind.INTERNAL or isinstance(error, LaterTermError)
    return isinstance(error, Exception) and not isinstance(error, ConflictError)


class ReadSet(Protocol):
    """Reads that remember what they rest on, so that a caller can cache what came of them."""

    async def get(self, path: Path) -> Entry | None:
        """Returns the entry, from memory where that is certain to be current."""
        ...

    @property
    def dependencies(self) -> list[bytes]:
        """The storage keys read so far, absent ones included."""
        ...

    @property
    def as_of(self) -> int:
        """A revision behind which a change of any of the keys makes what was read out of date.

        A change that is already part of it may be named again: it was read at that revision or later.
        """
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """A change seen by a watch. `value` is None where the path was deleted."""

    path: Path
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Changes:
    """How far a watch has come: all changes below its prefix up to a revision have been yielded, with these.

    Args:
        revision: up to which.
        events: all of that revision; none where nothing has changed for a while, so that this is news all the same.
    """

    revision: int
    events: list[Event]


class CompactedError(Exception):
    """A watch asked for revisions that etcd no longer has: list again and watch from there."""


class Store(Protocol):
    """What one service keeps."""

    async def get(self, path: Path, *, linearizable: bool = False) -> Entry | None:
        """Returns one entry, from the watched cache where this process's member lease is certain.

        A read that starts after a commit has returned, anywhere, sees it. `linearizable` always asks etcd.

        Raises:
            ServiceError: SEALED without keys, UNAVAILABLE without etcd, INTERNAL where a value does not
                open under its key.
        """
        ...

    async def get_many(self, paths: Sequence[Path]) -> list[Entry | None]:
        """Returns entries as etcd has them at one revision, MAX_OPERATIONS at the most; keeps nothing in memory.

        For work through many that are each read once.

        Raises:
            ServiceError: as `get`.
        """
        ...

    async def scan(
        self,
        prefix: Path,
        *,
        after: Path | None = None,
        until: Path | None = None,
        limit: int = 0,
        past_unreadable: bool = False,
    ) -> list[Entry]:
        """Returns the entries below a prefix in storage order: `Plain` segments by meaning, then encrypted ones.

        `after` continues behind an entry, `until` ends before one; a limit of 0 means all. A limit saves reading, yet
        etcd still passes over all keys up to the end. `past_unreadable` leaves out what does not open, and notes it
        as `note_unreadable` does: for work on many, which one of them may not stop.

        Raises:
            ServiceError: as `get`.
        """
        ...

    def note_unreadable(self, path: Path, error: BaseException) -> None:
        """Notes in the log and in the metrics that work on many goes past an entry that does not open or decode.

        The log names its storage key, in which names are encrypted, and the type of the error: no value, no text.
        """
        ...

    async def count(self, prefix: Path) -> int:
        """Returns how many entries there are below a prefix, as etcd has them."""
        ...

    async def children(self, prefix: Path) -> list[tuple[str, bool]]:
        """Returns the next segments below a prefix, sorted by name.

        The flag is True for a folder, that is, where something lies below the segment. A segment that is both
        an entry and a folder comes twice.
        """
        ...

    async def folders(self, prefix: Path, *, after: str = "", limit: int = 0) -> list[str]:
        """Returns the next segments below a prefix below which something lies; looks at one key of each.

        They are sorted. `after` goes on behind a name that need not be there, and `limit` ends a page; both are for
        names that are `Plain`. A limit of 0 means all.
        """
        ...

    async def clear(self, prefix: Path) -> None:
        """Removes everything below a prefix without reading it; where that is much, in several transactions.

        What is written there meanwhile may go or stay. Repeated after a crash, it goes on where it stopped.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        ...

    async def commit(self, transaction: Transaction) -> int:
        """Applies a transaction, waits until every member that caches the prefix has seen it; returns its revision.

        Raises:
            ConflictError: something was not at its expected revision; nothing was changed.
            ServiceError: TOO_LARGE before anything was written; UNAVAILABLE where the outcome may be
                unknown.
        """
        ...

    def reads(self, *, linearizable: bool = False) -> ReadSet:
        """Returns an empty read set; with `linearizable` all its reads ask etcd."""
        ...

    def made(self) -> dict[Any, Any] | None:
        """Returns what its owner made of several entries, or of their absence, as they stand now; at first nothing.

        It is replaced by an empty one with every change below the service's prefix, and when memory is given up. So
        what is put into it has to rest on what was read after it was asked for. None while memory is not certain.
        """
        ...

    def watch(self, prefix: Path, *, from_revision: int = 0) -> AsyncIterator[Changes]:
        """Yields changes below a prefix without gap or repetition, across reconnects; 0 means from now on.

        What is yielded while nothing changes, about each minute, is where to go on after a break: the revision of the
        last change may be long forgotten.

        Raises:
            CompactedError: `from_revision` is gone.
        """
        ...

    async def revision(self) -> int:
        """Returns the store's current revision."""
        ...


@contextlib.contextmanager
def going_past(store: Store, path: Path) -> Iterator[None]:
    """Runs the work on what an entry leads to. Where that cannot be read, it is noted, and the error ends here."""
    try:
        yield
    except Exception as error:
        if not unreadable(error):
            raise
        store.note_unreadable(path, error)

"""What a process keeps in memory of a prefix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strongroom_runtime.etcd.prefix import PrefixView
from strongroom_runtime.storage import Entry

MAX_ENTRIES = 100_000
MAX_BYTES = 256 << 20
_RECENT = 10_000
_OBJECTS = 600  # bytes that the objects of one key take themselves


@dataclass(slots=True)
class Cached:
    """A key as last seen.

    Args:
        raw: as it stands in etcd; None where the key is absent.
        revision: what wrote it (mod_revision); 0 where absent.
        as_of: a revision at which this held; changes up to it are part of it.
        decoded: opened, once it was.
    """

    raw: bytes | None
    revision: int
    as_of: int
    decoded: Entry | None = None


class Cache:
    """Keys of one prefix, bounded; the oldest loads go first.

    Serves nothing itself: the owner looks at `entries` only while the cluster is certain, and loads what is missing.
    """

    def __init__(
        self, view: PrefixView, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self.view = view
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self.entries: dict[bytes, Cached] = {}
        self.made: dict[Any, Any] = {}  # of entries, for as long as none of them changes
        # Changes of keys that are being loaded: a load must not put an older value over a newer one.
        self._loading: dict[bytes, int] = {}
        self._loads: dict[bytes, int] = {}
        view.listen(self)

    def __len__(self) -> int:
        return len(self.entries)

    def begin(self, key: bytes) -> int:
        """Announces a load, and returns what `keep` wants; every `begin` is followed by one `end`."""
        self._loads[key] = self._loads.get(key, 0) + 1
        return self.view.generation if self.view.live else -1

    def keep(self, key: bytes, loaded: Cached, begun: int) -> None:
        """Keeps what was loaded, unless changes may have been missed since, or a newer one came."""
        if begun != self.view.generation or not self.view.live:
            return
        known = self.entries.get(key)
        newest = max(self._loading.get(key, 0), known.as_of if known else 0)
        if newest <= loaded.as_of:
            self._put(key, loaded)

    def end(self, key: bytes) -> None:
        """Ends a load, kept or failed."""
        self._loads[key] -= 1
        if not self._loads[key]:
            del self._loads[key]
            self._loading.pop(key, None)

    def changed(self, key: bytes, value: bytes | None, revision: int) -> None:
        """Takes a change."""
        # An empty one as well: somebody may be about to put into it what rests on how things were.
        self.made = {}
        if key in self._loads:
            self._loading[key] = max(revision, self._loading.get(key, 0))
        known = self.entries.get(key)
        if known is None or known.as_of >= revision:
            return
        if value is None:
            # Work that goes through many keys and removes them must not fill the memory with what is not there.
            self._bytes -= _size(key, self.entries.pop(key))
        else:
            self._put(key, Cached(value, revision, revision))

    def forget(self) -> None:
        """Drops everything."""
        self.made = {}
        self.entries.clear()
        self._bytes = 0

    def _put(self, key: bytes, cached: Cached) -> None:
        replaced = self.entries.pop(key, None)
        self._bytes += _size(key, cached) - (_size(key, replaced) if replaced else 0)
        self.entries[key] = cached
        while len(self.entries) > self._max_entries or self._bytes > self._max_bytes:
            oldest = next(iter(self.entries))
            self._bytes -= _size(oldest, self.entries.pop(oldest))


class Invalidation:
    """For those who keep what a service told them, with the storage keys that it rests on.

    Sees keys and revisions only. An owner keeps an answer where `may_keep` says so, and drops it when one of its
    keys is named to `on_change`, or all when `on_forget` is called.
    """

    def __init__(
        self, view: PrefixView, on_change: Callable[[bytes], None], on_forget: Callable[[], None]
    ) -> None:
        self.view = view
        self._on_change = on_change
        self._on_forget = on_forget
        self._recent: dict[bytes, int] = {}
        self._floor = 0
        view.listen(self)

    def may_keep(self, dependencies: list[bytes], as_of: int) -> bool:
        """Returns whether an answer that held at a revision still does, and its changes will be named.

        Where `stale` says that the answer is older than what this view has seen from its start, a linearizable
        read gives one that can be kept.
        """
        if not self.view.live or self.stale(as_of):
            return False
        return all(self._recent.get(key, 0) <= as_of for key in dependencies)

    def stale(self, as_of: int) -> bool:
        """Returns whether changes behind a revision may have gone unseen."""
        return as_of < max(self._floor, self.view.started)

    def changed(self, key: bytes, value: bytes | None, revision: int) -> None:
        """Takes a change."""
        # Own commits may be named out of order: two requests to etcd can be under way.
        self._recent[key] = max(revision, self._recent.pop(key, 0))
        if len(self._recent) > _RECENT:
            oldest = next(iter(self._recent))
            self._floor = max(self._floor, self._recent.pop(oldest))
        self._on_change(key)

    def forget(self) -> None:
        """Drops everything."""
        self._recent.clear()
        self._on_forget()


def _size(key: bytes, cached: Cached) -> int:
    """Returns about how many bytes a key takes in memory.

    A value comes to stand there three times over: as it is in etcd, opened, and in what its service makes of it
    (`Entry.made`), such as an answer that holds it once more. All are counted from the first, so that the bound holds
    whatever is made later.
    """
    return len(key) + 3 * len(cached.raw or b"") + _OBJECTS

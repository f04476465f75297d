"""What is kept in memory of a prefix, whatever the order in which loads and changes come."""

from dataclasses import dataclass, field
from typing import Any

from strongroom_runtime.etcd.cache import Cache, Cached, Invalidation
from strongroom_runtime.etcd.prefix import MemberLease, PrefixView

KEY = b"kv/key"


@dataclass
class View:
    """Stands in for what follows a prefix."""

    generation: int = 1
    live: bool = True
    listeners: list[Any] = field(default_factory=list)

    def listen(self, listener: Any) -> None:
        self.listeners.append(listener)


def cache(**bounds: int) -> Cache:
    view: Any = View()
    return Cache(view, **bounds)


def load(cache: Cache, key: bytes, value: bytes | None, as_of: int) -> None:
    begun = cache.begin(key)
    cache.keep(key, Cached(value, as_of if value is not None else 0, as_of), begun)
    cache.end(key)


def test_a_change_replaces_what_is_kept_and_a_late_one_does_not() -> None:
    kept = cache()
    load(kept, KEY, b"1", 10)
    kept.changed(KEY, b"3", 12)
    kept.changed(KEY, b"2", 11)
    assert (kept.entries[KEY].raw, kept.entries[KEY].revision) == (b"3", 12)


def test_what_was_deleted_takes_no_memory_and_does_not_come_back() -> None:
    kept = cache()
    for number in range(1000):
        load(kept, b"kv/%d" % number, b"x", 10)
        kept.changed(b"kv/%d" % number, None, 11)
    assert len(kept) == 0
    assert kept._bytes == 0
    kept.changed(b"kv/1", b"old", 9)  # late
    assert len(kept) == 0


def test_a_load_from_before_a_deletion_is_not_kept() -> None:
    kept = cache()
    load(kept, KEY, b"1", 10)
    begun = kept.begin(KEY)
    kept.changed(KEY, None, 12)
    kept.keep(KEY, Cached(b"1", 10, 11), begun)
    kept.end(KEY)
    assert KEY not in kept.entries
    load(kept, KEY, None, 13)
    assert kept.entries[KEY].raw is None


def test_the_oldest_loads_go_first() -> None:
    kept = cache(max_entries=2)
    for number, key in enumerate((b"kv/a", b"kv/b", b"kv/c")):
        load(kept, key, b"x", number + 1)
    assert list(kept.entries) == [b"kv/b", b"kv/c"]


async def test_an_answer_from_before_a_write_that_did_not_wait_is_not_kept() -> None:
    client: Any = None
    view = PrefixView(client, b"auth/", MemberLease(), lambda: 0.0)
    kept = Invalidation(view, lambda _: None, lambda: None)
    view.started = view.applied = 10
    # Nothing is kept yet, so a writer need not wait; its change comes after the watch has begun.
    await view.reached(12)
    view._begin()
    assert not kept.may_keep([KEY], 11)
    assert kept.stale(11)
    assert kept.may_keep([KEY], 12)

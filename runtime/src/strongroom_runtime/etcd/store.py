"""The store over etcd: reads from memory where that is certain, one etcd transaction for each logical change."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.cache import Cache, Cached
from strongroom_runtime.etcd.change import Change
from strongroom_runtime.etcd.client import EtcdClient, prefix_end
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.codec import Codec
from strongroom_runtime.etcd.unreadable import Unreadable
from strongroom_runtime.etcd.watch import watch
from strongroom_runtime.metrics import Metrics
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
    unreadable,
)
from strongroom_runtime.telemetry import Telemetry

_PAGE = 1_000
_KEYS_PAGE = 5_000  # where values are not read
_AT_ONCE = 500  # keys that are decrypted before others have a turn: some ten milliseconds


class EtcdReadSet:
    """Reads that remember their keys and the oldest revision at which one of them held."""

    def __init__(self, store: "EtcdStore", linearizable: bool) -> None:
        self._store = store
        self._linearizable = linearizable
        self._keys: list[bytes] = []
        self._as_of = 0

    async def get(self, path: Path) -> Entry | None:
        """Returns the entry."""
        key = self._store.codec.encode_path(path)
        entry, as_of = await self._store.read(path, key, self._linearizable)
        self._keys.append(key)
        self._as_of = min(self._as_of, as_of) if self._as_of else as_of
        return entry

    @property
    def dependencies(self) -> list[bytes]:
        """The storage keys read so far, absent ones included."""
        return self._keys

    @property
    def as_of(self) -> int:
        """A revision such that later changes of any of the keys are not part of what was read, or are named again."""
        return self._as_of


class EtcdStore:
    """Implements `Store` for one service.

    Args:
        client: etcd.
        codec: the service's prefix and barrier.
        cluster: this process's membership; without it every read asks etcd, and writes wait for nobody (tools,
            and the seal service before there are keys).
        telemetry: of the service, for a span around each storage transaction.
        metrics: of the process.
    """

    def __init__(
        self,
        client: EtcdClient,
        codec: Codec,
        cluster: Cluster | None = None,
        telemetry: Telemetry | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry("")
        self._metrics = metrics or Metrics()
        self._client = client
        self.codec = codec
        self._cluster = cluster
        self._prefix = codec.encode_prefix(()).decode()
        self._service = self._prefix.rstrip("/")
        self._cache = Cache(cluster.view(self._prefix)) if cluster else None
        self._unreadable = Unreadable(self._service, self._metrics)

    def forget(self) -> None:
        """Drops what is in memory, decrypted values among it. Called when keys are taken away."""
        if self._cache is not None:
            self._cache.forget()

    async def get(self, path: Path, *, linearizable: bool = False) -> Entry | None:
        """Returns one entry."""
        key = self.codec.encode_path(path)
        cached = self._known(key, linearizable)
        if cached is not None and cached.decoded is not None:
            return cached.decoded
        return self._entry(path, key, cached or await self._load(key))

    def made(self) -> dict[Any, Any] | None:
        """Returns what was made of entries as they stand now; None while memory is not certain."""
        cache = self._cache
        return cache.made if cache is not None and cache.view.certain() else None

    async def read(
        self, path: Path, key: bytes, linearizable: bool = False
    ) -> tuple[Entry | None, int]:
        """Returns an entry and a revision at which it held."""
        cached = self._known(key, linearizable)
        if cached is not None and self._cache is not None:
            as_of = max(cached.as_of, self._cache.view.applied)
        else:
            cached = await self._load(key)
            as_of = cached.as_of
        return self._entry(path, key, cached), as_of

    def _known(self, key: bytes, linearizable: bool) -> Cached | None:
        """Returns what memory holds of a key, if that is certain to be current."""
        cache = self._cache
        if cache is None or linearizable or not cache.view.certain():
            return None
        return cache.entries.get(key)

    async def _load(self, key: bytes) -> Cached:
        """Returns a key as etcd has it, and keeps it."""
        cache = self._cache
        if cache is None:
            return await self._ask(key)
        begun = cache.begin(key)
        try:
            cached = await self._ask(key)
            cache.keep(key, cached, begun)
        finally:
            cache.end(key)
        return cached

    async def _ask(self, key: bytes) -> Cached:
        self._metrics.read_through(self._service)
        with self._telemetry.span("etcd read"):
            response = await self._client.range(key)
        as_of = response.header.revision
        if not response.kvs:
            return Cached(None, 0, as_of)
        return Cached(response.kvs[0].value, response.kvs[0].mod_revision, as_of)

    def _entry(self, path: Path, key: bytes, cached: Cached) -> Entry | None:
        if cached.raw is None:
            return None
        if cached.decoded is None:
            cached.decoded = Entry(path, self.codec.open(key, cached.raw), cached.revision)
        return cached.decoded

    async def get_many(self, paths: Sequence[Path]) -> list[Entry | None]:
        """Returns entries as of one revision, past the cache."""
        keys = [self.codec.encode_path(path) for path in paths]
        with self._telemetry.span("etcd read"):
            found = await self._client.gets(keys)
        return [
            Entry(path, self.codec.open(key, kv.value), kv.mod_revision) if kv is not None else None
            for path, key, kv in zip(paths, keys, found, strict=True)
        ]

    async def scan(
        self,
        prefix: Path,
        *,
        after: Path | None = None,
        until: Path | None = None,
        limit: int = 0,
        past_unreadable: bool = False,
    ) -> list[Entry]:
        """Returns the entries below a prefix in the order of their keys, as of one revision."""
        start = self.codec.encode_prefix(prefix)
        end = prefix_end(start) if until is None else self.codec.encode_path(until)
        if after is not None:
            start = self.codec.encode_path(after) + b"\0"
        entries: list[Entry] = []
        revision = 0
        while True:
            page = min(_PAGE, limit - len(entries)) if limit else _PAGE
            response = await self._client.range(start, end, limit=page, revision=revision)
            revision = revision or response.header.revision
            for kv in response.kvs:
                try:
                    entries.append(self._opened(kv))
                except Exception as error:
                    if not past_unreadable or not unreadable(error):
                        raise
                    self._unreadable.note(kv.key, error)
            if not response.more or (limit and len(entries) >= limit):
                return entries
            start = response.kvs[-1].key + b"\0"

    def note_unreadable(self, path: Path, error: BaseException) -> None:
        """Notes that work on many goes past an entry that does not open or decode."""
        self._unreadable.note(self.codec.encode_path(path), error)

    def _opened(self, kv: etcd_pb2.KeyValue) -> Entry:
        path = self.codec.decode_path(kv.key)
        return Entry(path, self.codec.open(kv.key, kv.value), kv.mod_revision)

    async def count(self, prefix: Path) -> int:
        """Returns how many entries there are below a prefix; none of them is read."""
        start = self.codec.encode_prefix(prefix)
        return (await self._client.range(start, prefix_end(start), count_only=True)).count

    async def children(self, prefix: Path) -> list[tuple[str, bool]]:
        """Returns the next segments below a prefix; folders are jumped over, not read."""
        base = self.codec.encode_prefix(prefix)
        end = prefix_end(base)
        found: set[tuple[str, bool]] = set()
        start, revision = base, 0
        while True:
            response = await self._client.range(
                start, end, limit=_KEYS_PAGE, revision=revision, keys_only=True
            )
            revision = revision or response.header.revision
            folder = b""
            for kv in response.kvs:
                if folder and kv.key.startswith(folder):
                    continue
                name, slash, _ = kv.key[len(base) :].partition(b"/")
                is_folder = bool(slash)
                folder = base + name + b"/" if is_folder else b""
                path = self.codec.decode_path(base + name)
                found.add((str(path[-1]), is_folder))
                if len(found) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            if not response.more:
                return sorted(found)
            start = prefix_end(folder) if folder else response.kvs[-1].key + b"\0"

    async def folders(self, prefix: Path, *, after: str = "", limit: int = 0) -> list[str]:
        """Returns the folders below a prefix; what lies in them is jumped over."""
        start = base = self.codec.encode_prefix(prefix)
        end, found = prefix_end(base), list[str]()
        if after:
            start = prefix_end(self.codec.encode_prefix((*prefix, Plain(after))))
        while (not limit or len(found) < limit) and (
            kvs := (await self._client.range(start, end, limit=1, keys_only=True)).kvs
        ):
            name, slash, _ = kvs[0].key[len(base) :].partition(b"/")
            if slash:
                found.append(str(self.codec.decode_path(base + name)[-1]))
            start = prefix_end(base + name + b"/") if slash else kvs[0].key + b"\0"
        return sorted(found)

    async def commit(self, transaction: Transaction) -> int:
        """Applies a transaction, waits until every member knows, and returns its revision."""
        transaction.check()
        change = self._change(transaction)
        if max(change.operations, len(change.expect)) > MAX_OPERATIONS:
            raise ServiceError(
                Kind.TOO_LARGE, f"one change may have at most {MAX_OPERATIONS} operations"
            )
        if change.size > MAX_BYTES:
            raise ServiceError(Kind.TOO_LARGE, f"one change may have at most {MAX_BYTES} bytes")
        return await self._run(change)

    async def clear(self, prefix: Path) -> None:
        """Removes everything below a prefix, some thousand entries a transaction."""
        base = self.codec.encode_prefix(prefix)
        end = prefix_end(base)
        while kvs := (await self._client.range(base, end, limit=_PAGE, keys_only=True)).kvs:
            await self._run(Change(ranges=[(kvs[0].key, kvs[-1].key + b"\0")]))

    async def _run(self, change: Change) -> int:
        begun, noted = time.perf_counter(), "failed"
        try:
            with self._telemetry.span("etcd transaction"):
                if self._cluster is None:
                    request = etcd_pb2.TxnRequest()
                    change.write(request)
                    response = await self._client.transaction(request)
                    succeeded, revision = response.succeeded, response.header.revision
                else:
                    outcome = await self._cluster.commit(change, self._prefix)
                    succeeded, revision = outcome.succeeded, outcome.revision
            noted = "committed" if succeeded else "conflict"
        finally:
            self._metrics.transaction_ended(begun, self._service, noted)
        if not succeeded:
            raise ConflictError
        return revision

    def reads(self, *, linearizable: bool = False) -> EtcdReadSet:
        """Returns an empty read set."""
        return EtcdReadSet(self, linearizable)

    async def watch(self, prefix: Path, *, from_revision: int = 0) -> AsyncIterator[Changes]:
        """Yields the changes below a prefix, those of one revision together."""
        start = from_revision or await self.revision() + 1
        async for seen in watch(self._client, self.codec.encode_prefix(prefix), start):
            yield Changes(seen.revision, [self._event(event) for event in seen.events])

    async def revision(self) -> int:
        """Returns the store's current revision."""
        # Below the own prefix: etcd may not let this process read anything else.
        return (await self._client.range(self._prefix.encode(), limit=1)).header.revision

    def _event(self, event: etcd_pb2.Event) -> Event:
        key = event.kv.key
        deleted = event.type == etcd_pb2.Event.DELETE
        value = None if deleted else self.codec.open(key, event.kv.value)
        return Event(self.codec.decode_path(key), value, event.kv.mod_revision)

    def _change(self, transaction: Transaction) -> Change:
        encode, seal = self.codec.encode_path, self.codec.seal
        puts: dict[bytes, bytes] = {}
        for path, value in transaction.puts.items():
            key = encode(path)
            puts[key] = seal(key, value)
        below = map(self.codec.encode_prefix, transaction.delete_prefixes)
        between = [(encode(start), encode(end)) for start, end in transaction.delete_ranges]
        return Change(
            {encode(path): revision for path, revision in transaction.expect.items()},
            puts,
            [encode(path) for path in transaction.deletes],
            [*((prefix, prefix_end(prefix)) for prefix in below), *between],
        )

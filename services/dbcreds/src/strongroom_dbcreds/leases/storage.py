"""Where leases are kept. Every change is one transaction.

lease/<key>                      the lease
queue/<uuid>/<database>/<time>/<key>  when something is to be done about it, in milliseconds, by connection
prefix/<segment>/…/k.<key>       all leases that are not ghosts, by the segments of their ids
prefix/<segment>/…/<key>         the same, of earlier versions, with the key encrypted as the segments are
token/<token>/<key>              by the token that obtained them
mount/<uuid>/<key>               by mount
failing/<uuid>/<database>/<key>  those that could not be revoked, by connection
name/<uuid>/<database>/<username>  the users whose names an operator's template made, ghosts' too: each name once
event/<shard>                    what happened last to a lease of the shard: read by watching
due/<time>/<key>                 as `queue`, of earlier versions
"""

import bisect
import contextlib
import string
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from strongroom_dbcreds.domain.leases import Lease, State
from strongroom_runtime.mount_marks import gone_path
from strongroom_runtime.requests import page_of_entries
from strongroom_runtime.secrets import random_letters
from strongroom_runtime.storage import ConflictError, Entry, Path, Plain, Store, Transaction
from strongroom_runtime.time_index import TimeIndex
from strongroom_runtime.unchanged import unless_unchanged

_LEASE, _QUEUE, _PREFIX, _DUE = Plain("lease"), Plain("queue"), Plain("prefix"), Plain("due")
_TOKEN, _MOUNT, _FAILING, _EVENT = Plain("token"), Plain("mount"), Plain("failing"), Plain("event")
_NAME = Plain("name")
PAGE = 100
_MARK = "k."
_SHARDS = 64
_LETTERS = string.ascii_letters + string.digits
_IN_ORDER = "".join(sorted(_LETTERS))

ISSUED, RENEWED, REVOKED, FAILED = "issued", "renewed", "revoked", "failed"

# The uuid of a mount and a connection of it: whose leases are worked on beside those of others.
Queue = tuple[str, str]

_decode = msgspec.msgpack.Decoder(Lease).decode
_encode = msgspec.msgpack.encode


class Happened(msgspec.Struct, frozen=True):
    """What happened to a lease: one of ISSUED, RENEWED, REVOKED, FAILED."""

    kind: str
    id: str
    time: float
    expires: float
    error: str = ""


_decode_event = msgspec.msgpack.Decoder(Happened).decode


@dataclass(frozen=True, slots=True)
class Kept:
    """A lease, and the revision at which it stands so."""

    lease: Lease
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a lease.

    Args:
        before: as it was read.
        after: as it is to stand; None for gone.
        event: what is told of it; None for nothing.
    """

    before: Kept
    after: Lease | None
    event: Happened | None = None


def new_key() -> str:
    """Returns the random part of a lease id: 24 letters and digits, as Vault's."""
    return random_letters(_LETTERS, 24)


class Leases:
    """The records of all leases."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._due: dict[Queue, TimeIndex] = {}

    async def get(self, key: str) -> Kept | None:
        """Returns a lease by its random part."""
        if not key or not all(letter in _LETTERS for letter in key):
            return None
        entry = await self.store.get((_LEASE, Plain(key)))
        return Kept(_decode(entry.value), entry.revision) if entry is not None else None

    async def get_many(self, keys: Sequence[str]) -> list[Kept]:
        """Returns those of a page of leases that there are."""
        entries = await self.store.get_many([(_LEASE, Plain(key)) for key in keys])
        return [Kept(_decode(each.value), each.revision) for each in entries if each is not None]

    async def find(self, lease_id: str) -> Kept | None:
        """Returns a lease by its id; ghosts are none."""
        lease_id = lease_id.strip("/")
        kept = await self.get(lease_id.rpartition("/")[2])
        if kept is None or kept.lease.id != lease_id or kept.lease.state is State.GHOST:
            return None
        return kept

    async def announce(self, lease: Lease, guard: Transaction) -> int:
        """Records that a user is about to be made; returns the revision.

        Args:
            lease: in the state CREATING.
            guard: what must hold beside, and be changed with it.

        Raises:
            ConflictError: the guard does not hold, the mount is gone, or the name is taken.
        """
        transaction = guard
        transaction.expect |= {_path(lease): 0, gone_path(lease.mount): 0}
        if lease.reserved:
            transaction.expect[_name_path(lease)] = 0
        transaction.puts |= dict.fromkeys(_entries(lease), b"")
        transaction.puts[_path(lease)] = _encode(lease)
        return await self.store.commit(transaction)

    async def taken(self, lease: Lease) -> bool:
        """Returns whether another lease has reserved the name of a new one's user."""
        return lease.reserved and await self.store.get(_name_path(lease)) is not None

    async def restore(self, lease: Lease) -> Kept:
        """Records a lease that was removed, though its user may exist.

        Raises:
            ConflictError: it is there.
        """
        transaction = Transaction(
            expect={_path(lease): 0},
            puts={_path(lease): _encode(lease), **dict.fromkeys(_entries(lease), b"")},
        )
        return Kept(lease, await self.store.commit(transaction))

    async def replace(self, before: Kept, after: Lease, event: Happened | None = None) -> Kept:
        """Writes a lease anew, with its indexes; returns it as it stands.

        Raises:
            ConflictError: it changed meanwhile.
        """
        return Kept(after, await self.store.commit(_transaction(Change(before, after, event))))

    async def remove(self, kept: Kept, event: Happened | None = None) -> None:
        """Forgets a lease.

        Raises:
            ConflictError: it changed meanwhile.
        """
        await self.store.commit(_transaction(Change(kept, None, event)))

    async def change_many(self, changes: Sequence[Change]) -> tuple[list[Kept], list[Change]]:
        """Changes leases, as many in one transaction as fit into it.

        Returns:
            Those that were written anew, as they stand; and the changes that were not made: of each transaction in
            which one lease had changed meanwhile, all.
        """
        written: list[Kept] = []
        left: list[Change] = []
        for transaction, joined in _joined(changes):
            try:
                revision = await self.store.commit(transaction)
            except ConflictError:
                left += joined
            else:
                written += [Kept(each.after, revision) for each in joined if each.after is not None]
        return written, left

    async def queues(self) -> list[Queue]:
        """Returns the connections that have leases."""
        return await unless_unchanged(self.store, _QUEUE, self._look_for_queues)

    async def _look_for_queues(self) -> list[Queue]:
        mounts = await self.store.folders((_QUEUE,))
        found = [
            (mount, database)
            for mount in mounts
            for database in await self.store.folders((_QUEUE, Plain(mount)))
        ]
        for gone in self._due.keys() - set(found):
            del self._due[gone]
        return found

    async def due(self, queue: Queue, now: float, limit: int) -> list[tuple[float, str]]:
        """Returns (time, key) of a connection's leases about which something is to be done, the oldest first."""
        index = self._due.get(queue)
        if index is None:
            index = TimeIndex(self.store, _queue_path(queue), digits=15, per_second=1000)
            self._due[queue] = index
        entries = await index.due(now, limit)
        return [(int(entry.path[-2]) / 1000, str(entry.path[-1])) for entry in entries]

    def pass_over(self, queue: Queue, entries: Sequence[tuple[float, str]]) -> None:
        """Leaves entries (time, key) of leases that do not open out of what is due, for a minute."""
        index = self._due.get(queue)
        if index is not None:
            for time, key in entries:
                index.pass_over((*_queue_path(queue), *_when(time, key)))

    def note_unreadable(self, key: str, error: BaseException) -> None:
        """Notes that a lease does not open, and that work on many goes past it."""
        self.store.note_unreadable((_LEASE, Plain(key)), error)

    async def forget_due(self, queue: Queue, entries: Sequence[tuple[float, str]]) -> None:
        """Removes entries (time, key) of the index of due leases that lead nowhere."""
        deletes = [(*_queue_path(queue), *_when(time, key)) for time, key in entries]
        await self.store.commit(Transaction(deletes=deletes))

    async def refile(self) -> None:
        """Puts into the queues what an earlier version put into one index. May be repeated, by any replica."""
        old = partial(self.store.scan, (_DUE,), limit=PAGE)
        while entries := await unless_unchanged(self.store, _DUE, old):
            known = {
                kept.lease.key: kept for kept in await self.get_many([e.path[-1] for e in entries])
            }
            for entry in entries:
                kept = known.get(entry.path[-1])
                transaction = Transaction(deletes=[entry.path])
                if kept is not None:
                    transaction.expect[_path(kept.lease)] = kept.revision
                    transaction.puts[_due(kept.lease)] = b""
                with contextlib.suppress(ConflictError):
                    await self.store.commit(transaction)

    async def of_token(self, token: str, after: str = "") -> list[str]:
        """Returns keys of the leases that a token obtained, a page of them behind a key."""
        return await self._keys((_TOKEN, Plain(token)), after)

    async def of_mount(self, mount: str, after: str = "") -> list[str]:
        """Returns keys of a mount's leases, a page of them behind a key."""
        return await self._keys((_MOUNT, Plain(mount)), after)

    async def below(self, prefix: str, after: Path | None) -> tuple[list[str], Path | None]:
        """Returns keys of leases whose ids begin with a prefix, a page of them, and where to go on."""
        path = _prefix_path(prefix)
        if after is None:
            for exact in (_id_path(prefix), path):
                if await self.store.get(exact) is not None:
                    return [str(path[-1])], path
        entries = await self._page(path, after, _MARK)
        keys = [e.path[-1].removeprefix(_MARK) for e in entries]
        return keys, entries[-1].path if entries else None

    async def names(self, prefix: str) -> list[str]:
        """Returns the next segments of ids below a prefix, sorted; folders end with a slash."""
        children = await self.store.children(_prefix_path(prefix))
        return sorted(
            name + "/" if folder else name.removeprefix(_MARK) for name, folder in children
        )

    async def page(self, prefix: str, after: str, limit: int) -> list[str] | None:
        """Returns a page of the names where ids of leases alone lie below a prefix; None where folders do, too.

        Raises:
            ServiceError: NOT_FOUND where there are no names at all.
        """
        return await page_of_entries(self.store, _prefix_path(prefix), after, limit, _MARK)

    async def count(self, prefix: str) -> int:
        """Returns how many leases have ids that begin with a prefix."""
        return await self.store.count(_prefix_path(prefix))

    async def counts(self) -> dict[str, int]:
        """Returns how many leases each mount has, by uuid."""
        mounts = [name for name, _ in await self.store.children((_MOUNT,))]
        return {mount: await self.count_of_mount(mount) for mount in mounts}

    async def count_of_mount(self, mount: str) -> int:
        """Returns how many leases a mount has."""
        return await self.store.count((_MOUNT, Plain(mount)))

    async def failing(self) -> list[Queue]:
        """Returns (mount, connection) of leases that could not be revoked."""
        return await unless_unchanged(self.store, _FAILING, self._look_for_failing)

    async def _look_for_failing(self) -> list[Queue]:
        found = []
        for mount, _ in await self.store.children((_FAILING,)):
            databases = await self.store.children((_FAILING, Plain(mount)))
            found += [(mount, database) for database, _ in databases]
        return found

    async def failing_of(self, mount: str, database: str, after: str = "") -> list[str]:
        """Returns keys of a connection's leases that could not be revoked, a page of them behind a key."""
        return await self._keys((_FAILING, Plain(mount), database), after)

    def event(self, entry: bytes) -> Happened:
        """Returns what an event says."""
        return _decode_event(entry)

    async def _keys(self, prefix: Path, after: str) -> list[str]:
        behind = (*prefix, Plain(after)) if after else None
        return [str(entry.path[-1]) for entry in await self._page(prefix, behind)]

    async def _page(self, prefix: Path, after: Path | None, mark: str = "") -> list[Entry]:
        """Returns a page of the entries below a prefix, which end with the keys of leases.

        etcd passes over all keys of a range, and reading a hundred thousand page by page would be a matter of the
        square of that. Keys are random: those that begin with a letter are a 62nd of them.
        """
        found: list[Entry] = []
        if after is not None and after[-1].startswith(mark):
            *folder, last = after
            rest = _IN_ORDER[bisect.bisect(_IN_ORDER, last[len(mark) : len(mark) + 1]) :]
            width = 1
            while rest and len(found) < PAGE:
                end, rest = rest[:width][-1], rest[width:]
                until = (*folder, Plain(mark + end))
                found += await self.store.scan(
                    prefix, after=after, until=until, limit=PAGE - len(found)
                )
                after, width = found[-1].path if found else after, width * 2
        if len(found) < PAGE:
            found += await self.store.scan(prefix, after=after, limit=PAGE - len(found))
        return found


EVENTS: Path = (_EVENT,)


def happened(kind: str, lease: Lease, now: float) -> Happened:
    """Returns the event of a change."""
    return Happened(kind, lease.id, now, lease.expires, lease.error if kind == FAILED else "")


def _tell(transaction: Transaction, key: str, event: Happened, taken: Container[Path]) -> None:
    # Few keys, written over and over: whoever watches sees each value, and nothing has to be cleaned. A transaction
    # writes a key once, so that each of its events takes one that is not taken.
    shard = sum(key.encode()) % _SHARDS
    while (path := (_EVENT, Plain(f"{shard:02}"))) in taken:
        shard = (shard + 1) % _SHARDS
    transaction.puts[path] = _encode(event)


def _path(lease: Lease) -> Path:
    return (_LEASE, Plain(lease.key))


def _joined(changes: Iterable[Change]) -> list[tuple[Transaction, list[Change]]]:
    """Returns as few transactions as changes fit into."""
    joined: list[tuple[Transaction, list[Change]]] = []
    for change in changes:
        if joined and joined[-1][0].join(_transaction(change, joined[-1][0].puts)):
            joined[-1][1].append(change)
        else:
            joined.append((_transaction(change), [change]))
    return joined


def _transaction(change: Change, taken: Container[Path] = ()) -> Transaction:
    """Returns what changes a lease and its indexes.

    Args:
        change: what becomes of it.
        taken: what else is written with it.
    """
    lease, after = change.before.lease, change.after
    old, new = _entries(lease), _entries(after) if after is not None else set()
    if old - new >= set(_indexes(lease)):
        old.add(_prefix_path(lease.id))
    transaction = Transaction(
        expect={_path(lease): change.before.revision}, deletes=sorted(old - new)
    )
    if after is None:
        transaction.deletes.append(_path(lease))
    else:
        transaction.puts = {_path(after): _encode(after), **dict.fromkeys(new - old, b"")}
    if change.event is not None:
        _tell(transaction, lease.key, change.event, taken)
    return transaction


def _queue_path(queue: Queue) -> Path:
    return (_QUEUE, Plain(queue[0]), queue[1])


def _when(time: float, key: str) -> Path:
    return (Plain(f"{round(time * 1000):015}"), Plain(key))


def _due(lease: Lease) -> Path:
    return (*_queue_path((lease.mount, lease.database)), *_when(lease.due, lease.key))


def _prefix_path(prefix: str) -> Path:
    segments = [segment for segment in prefix.split("/") if segment]
    return (_PREFIX, *segments)


def _name_path(lease: Lease) -> Path:
    return (_NAME, Plain(lease.mount), lease.database, lease.username)


def _id_path(lease_id: str) -> Path:
    """Returns where a lease stands by its id: its key is plain, so that those of a role are in order."""
    *segments, key = _prefix_path(lease_id)
    plain = all(letter in _LETTERS for letter in key)  # if not, it is none
    return (*segments, Plain(_MARK + key) if plain else key)


def _indexes(lease: Lease) -> tuple[Path, ...]:
    return (
        _id_path(lease.id),
        (_TOKEN, Plain(lease.token), Plain(lease.key)),
        (_MOUNT, Plain(lease.mount), Plain(lease.key)),
    )


def _entries(lease: Lease) -> set[Path]:
    """Returns the index entries that a lease has."""
    entries = {_due(lease)}
    if lease.reserved:
        entries.add(_name_path(lease))
    if lease.state is not State.GHOST:
        entries.update(_indexes(lease))
    if lease.failing_since:
        entries.add((_FAILING, Plain(lease.mount), lease.database, Plain(lease.key)))
    return entries

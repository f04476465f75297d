"""Waiting for the other members: who caches a prefix, and whether they have applied a write.

See `docs/decisions/0002-acknowledged-writes.md`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient, prefix_end
from strongroom_runtime.repeated import Repeated

CLUSTER = b"cluster/"  # what all processes read
MEMBERS = (
    CLUSTER + b"members/"
)  # the record of each, below the service whose user of etcd writes it
ASKED = CLUSTER + b"asked/"  # a mark for each that is to withdraw, which any process writes

_POLL_SECONDS = 0.2
_MOST_CHARACTERS = 500  # names of clients may be of any length
_ASKED_SECONDS = 60  # a member looks every second, or has lost its lease

# (address, prefix, revision, timeout in seconds): returns when the process there has applied the revision.
Confirm = Callable[[str, str, int, float], Awaitable[None]]


class Member(msgspec.Struct, frozen=True):
    """A process that serves from memory.

    Args:
        address: host:port of its internal server.
        prefixes: what it keeps in memory, such as `auth/`.
        services: those that take calls at the address now.
    """

    address: str
    prefixes: tuple[str, ...]
    services: tuple[str, ...] = ()


def read_member(record: etcd_pb2.KeyValue) -> Member | None:
    """Returns what a member's record says; None where it cannot be read."""
    try:
        return msgspec.msgpack.decode(record.value, type=Member)
    except msgspec.DecodeError:
        return None


class Peer:
    """One other member, as a writer sees it. At most one confirmation is under way for each prefix.

    Args:
        client: the cluster's etcd.
        key: of its record.
        member: what the record says; None where it cannot be read. Such a member may serve anything from memory, and
            nobody knows where to ask it: a write waits until it has withdrawn, or its lease has run out.
        confirm: asks it.
        patience: seconds after which one that does not answer is asked to withdraw.
    """

    def __init__(
        self,
        client: EtcdClient,
        key: bytes,
        member: Member | None,
        confirm: Confirm,
        patience: float,
    ) -> None:
        self._client = client
        self._key = key
        self._member = member
        self._confirm = confirm
        self._patience = patience
        self._confirmed: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asking = Repeated("the asking of a member", logging.WARNING)
        self.gone = False

    async def wait(self, prefix: str, revision: int) -> None:
        """Returns when the member has applied a revision below a prefix, or is a member no more."""
        if self.gone or self._confirmed.get(prefix, 0) >= revision:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(prefix, []).append((revision, future))
        if prefix not in self._tasks:
            self._tasks[prefix] = asyncio.create_task(self._run(prefix))
        await future

    async def _run(self, prefix: str) -> None:
        """Asks for the highest revision that anyone waits for, until none waits."""
        try:
            while self._waiting.get(prefix):
                await self._ask(prefix, max(r for r, _ in self._waiting[prefix]))
        finally:
            del self._tasks[prefix]

    async def _ask(self, prefix: str, revision: int) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not self.gone:
            try:
                if self._member is not None:
                    await self._confirm(self._member.address, prefix, revision, self._patience / 2)
                    self._asking.goes_well()
                    break
            except ServiceError:
                pass
            except Exception as error:
                # Of an address that is none, for one. Whatever it was, nothing is confirmed.
                self._asking.failed(error)
            await self._look(unreachable_for=loop.time() - started)
        self._confirmed[prefix] = revision
        waiting = self._waiting.pop(prefix, [])
        still = [(r, f) for r, f in waiting if r > revision and not self.gone]
        if still:
            self._waiting[prefix] = still
        for wanted, future in waiting:
            if (wanted <= revision or self.gone) and not future.done():
                future.set_result(None)

    async def _look(self, unreachable_for: float) -> None:
        """Finds out whether the member is still one; asks it to withdraw where it lives but does not answer."""
        try:
            found = (await self._client.range(self._key)).kvs
            if not found:
                # Its lease ran out, or it withdrew: either way it has served nothing from memory since.
                self.gone = True
                return
            if self._member is None and not found[0].lease and unreachable_for > 2 * self._patience:
                # Nobody's record, or a member's that was written over: that one has noticed by now, since it looks at
                # its record before it trusts a renewed lease.
                self.gone = True
                return
            if self._member is None or unreachable_for > self._patience:
                await ask_to_withdraw(self._client, self._key)
        except ServiceError:
            pass  # etcd itself is away; the write waits, as its caller's deadline allows
        await asyncio.sleep(_POLL_SECONDS)


def shown(key: bytes) -> str:
    """Returns the key of a record as logs show it."""
    return key.decode(errors="replace")[:_MOST_CHARACTERS]


def mark_of(key: bytes) -> bytes:
    """Returns where it is said that a member, by the key of its record, is asked to withdraw."""
    return ASKED + key.removeprefix(MEMBERS)


def written_by(service: str) -> bytes:
    """Returns the prefix of the records of a service's members."""
    return MEMBERS + service.encode() + b"/"


def named(name: str) -> bytes:
    """Returns how the names of a process's records begin, and those of no other."""
    return name.encode() + b"-"


async def bury(client: EtcdClient, name: str) -> int:
    """Ends the leases of a process that is dead for certain, so that no writer waits for them to run out.

    Args:
        client: may write the records.
        name: of the process, as `Cluster.start` was told.

    Returns:
        How many records there were.

    Raises:
        ServiceError: UNAVAILABLE.
    """
    found = (await client.range(MEMBERS, prefix_end(MEMBERS))).kvs
    dead = [kv for kv in found if kv.key.rpartition(b"/")[2].startswith(named(name))]
    for kv in dead:
        await client.revoke(kv.lease)
    return len(dead)


async def ask_to_withdraw(client: EtcdClient, key: bytes) -> None:
    """Marks a member that lives but cannot be reached; it finds the mark with its next keep-alive.

    Its record is not touched: only its own lease or the member itself may delete it, since its absence is the proof
    that the member serves nothing from memory.
    """
    mark = mark_of(key)
    if (await client.range(mark)).kvs:
        return
    lease = await client.grant(_ASKED_SECONDS)
    request = etcd_pb2.TxnRequest()
    request.success.add().request_put.MergeFrom(etcd_pb2.PutRequest(key=mark, lease=lease.ID))
    await client.transaction(request)

"""Many transactions in one: those that are ready at once, or while others are under way, go to etcd together.

Each keeps its own comparisons and its own outcome, as a nested transaction (etcd documentation, "API: Transaction").
etcd evaluates all comparisons before it applies anything; so only transactions that touch different keys share
one, and the outcome is that of some order of them. See `docs/decisions/0007-hot-path.md`.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.change import Change
from strongroom_runtime.etcd.client import prefix_end
from strongroom_runtime.etcd.members import MEMBERS
from strongroom_runtime.service import BackgroundTasks

# etcd counts operations along a path of nested transactions, 128 by default; and bytes, 1.5 MiB.
_MOST = 60
# So many waiting are worth a second request beside the one under way: this process works while etcd writes.
_ENOUGH = 16
# Turns of the event loop between two batches. A request that has arrived in this process needs about as many to come
# here, and the fewer go at a time, the more each costs, here and in etcd.
_TURNS = 4
_MOST_OPERATIONS = 60
_MOST_BYTES = 500_000
_BEHIND_MEMBERS = prefix_end(MEMBERS)


class Outcome(msgspec.Struct, frozen=True):
    """What became of a transaction.

    Args:
        succeeded: its comparisons held.
        changed: it changed something.
        revision: of the store afterwards.
        members: the records of all members, as of this revision; one object for all that went together.
    """

    succeeded: bool
    changed: bool
    revision: int
    members: etcd_pb2.RangeResponse


class _Item(msgspec.Struct):
    change: Change
    future: asyncio.Future[Outcome]
    size: int
    alone: bool


@dataclass(slots=True)
class _Batch:
    items: list[_Item] = field(default_factory=list)
    reads: set[bytes] = field(default_factory=set)
    writes: set[bytes] = field(default_factory=set)
    size: int = 0

    def add(self, item: _Item) -> bool:
        """Takes a transaction, if it fits in."""
        if self.items and not self._fits(item):
            return False
        change = item.change
        self.items.append(item)
        self.reads.update(change.expect)
        self.writes.update(change.puts, change.deletes)
        self.size += item.size
        return True

    def _fits(self, item: _Item) -> bool:
        change, writes = item.change, self.writes
        return not (
            item.alone
            or self.items[0].alone
            or len(self.items) >= _MOST
            or self.size + item.size > _MOST_BYTES
            or not writes.isdisjoint(change.puts)
            or not writes.isdisjoint(change.deletes)
            or not writes.isdisjoint(change.expect)
            or not self.reads.isdisjoint(change.puts)
            or not self.reads.isdisjoint(change.deletes)
        )


class Transactions(Protocol):
    """What is needed of `EtcdClient`."""

    @property
    def answers_early(self) -> bool:
        """Whether `logged` has to follow an answer."""
        ...

    async def answer(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        """Runs a transaction."""
        ...

    async def logged(self, response: etcd_pb2.TxnResponse) -> None:
        """Returns once what was answered survives a crash."""
        ...


class Batcher:
    """Runs transactions, with the member list read in each.

    Args:
        client: etcd.
    """

    def __init__(self, client: Transactions) -> None:
        self._client = client
        self._waiting: list[_Item] = []
        self._sending = 0  # requests under way
        self._tasks = BackgroundTasks()

    def run(self, change: Change) -> asyncio.Future[Outcome]:
        """Runs a transaction, alone or with others. Once begun it goes on even if who waits for it is cancelled.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        size = change.size
        alone = (
            bool(change.ranges)
            or size > _MOST_BYTES
            or max(change.operations, len(change.expect)) > _MOST_OPERATIONS
        )
        self._waiting.append(_Item(change, future, size, alone))
        if not self._sending or (self._sending == 1 and len(self._waiting) >= _ENOUGH):
            self._sending += 1
            self._tasks.start(self._send_all(), "etcd-batch")
        return future

    async def _send_all(self) -> None:
        try:
            while items := self._next():
                await self._send(items)
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
        finally:
            self._sending -= 1

    def _next(self) -> list[_Item]:
        """Takes what can go together, the one that waits longest first."""
        batch = _Batch()
        self._waiting = [item for item in self._waiting if not batch.add(item)]
        return batch.items

    async def _send(self, items: list[_Item]) -> None:
        try:
            response = await self._ask([item.change for item in items])
        except Exception as error:
            _fail(items, error)
            return
        outcomes = _outcomes([item.change for item in items], response)
        if self._client.answers_early:
            # The next request does not wait for it.
            self._tasks.start(self._settle_logged(items, outcomes, response), "etcd-logged")
        else:
            _settle(items, outcomes)

    async def _settle_logged(
        self, items: list[_Item], outcomes: list[Outcome], response: etcd_pb2.TxnResponse
    ) -> None:
        try:
            await self._client.logged(response)
        except Exception as error:
            _fail(items, error)
        else:
            _settle(items, outcomes)

    async def _ask(self, changes: list[Change]) -> etcd_pb2.TxnResponse:
        request = etcd_pb2.TxnRequest()
        for change in changes:
            change.write(request if len(changes) == 1 else request.success.add().request_txn)
        # Read in the same transaction: whoever registers later reads at a later revision.
        members = request.success.add().request_range
        members.key, members.range_end = MEMBERS, _BEHIND_MEMBERS
        return await self._client.answer(request)


def _outcomes(changes: list[Change], response: etcd_pb2.TxnResponse) -> list[Outcome]:
    """Returns what became of each of the changes of one request."""
    alone = len(changes) == 1
    parts = [response] if alone else [each.response_txn for each in response.responses[:-1]]
    found = (
        response.responses[-1].response_range if response.succeeded else etcd_pb2.RangeResponse()
    )
    revision = response.header.revision
    return [
        Outcome(part.succeeded, change.changed(part), revision, found)
        for change, part in zip(changes, parts, strict=True)
    ]


def _settle(items: list[_Item], outcomes: list[Outcome]) -> None:
    for item, outcome in zip(items, outcomes, strict=True):
        if not item.future.done():
            item.future.set_result(outcome)


def _fail(items: list[_Item], error: Exception) -> None:
    for item in items:
        if not item.future.done():
            item.future.set_exception(error.again() if isinstance(error, ServiceError) else error)

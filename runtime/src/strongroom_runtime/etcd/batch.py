"""Many transactions in one: those that are ready while others are under way go to etcd together.

Each keeps its own comparisons and its own outcome, as a nested transaction (etcd documentation, "API: Transaction").
etcd evaluates all comparisons before it applies anything; so only transactions that touch different keys share
one, and the outcome is that of some order of them. See `docs/decisions/0007-hot-path.md`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import prefix_end
from strongroom_runtime.etcd.members import MEMBERS
from strongroom_runtime.service import BackgroundTasks

# etcd counts operations along a path of nested transactions, 128 by default; and bytes, 1.5 MiB.
_MOST = 60
# So many waiting are worth a second request beside the one under way: this process works while etcd writes.
_ENOUGH = 16
_MOST_OPERATIONS = 60
_MOST_BYTES = 500_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a transaction.

    Args:
        succeeded: its comparisons held.
        changed: it changed something.
        revision: of the store afterwards.
        members: the records of all members, as of this revision.
    """

    succeeded: bool
    changed: bool
    revision: int
    members: etcd_pb2.RangeResponse


@dataclass(eq=False, slots=True)
class _Item:
    request: etcd_pb2.TxnRequest
    future: asyncio.Future[Outcome]
    reads: frozenset[bytes]
    writes: frozenset[bytes]
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
        self.items.append(item)
        self.reads |= item.reads
        self.writes |= item.writes
        self.size += item.size
        return True

    def _fits(self, item: _Item) -> bool:
        return not (
            item.alone
            or self.items[0].alone
            or len(self.items) >= _MOST
            or self.size + item.size > _MOST_BYTES
            or not item.writes.isdisjoint(self.writes)
            or not item.writes.isdisjoint(self.reads)
            or not item.reads.isdisjoint(self.writes)
        )


class Batcher:
    """Runs transactions, with the member list read in each.

    Args:
        transaction: `EtcdClient.transaction`.
    """

    def __init__(
        self, transaction: Callable[[etcd_pb2.TxnRequest], Awaitable[etcd_pb2.TxnResponse]]
    ) -> None:
        self._transaction = transaction
        self._waiting: list[_Item] = []
        self._sending = 0  # requests under way
        self._tasks = BackgroundTasks()

    async def run(self, request: etcd_pb2.TxnRequest) -> Outcome:
        """Runs a transaction, alone or with others. Once begun it goes on even if the caller is cancelled.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_item(request, future))
        if not self._sending or (self._sending == 1 and len(self._waiting) >= _ENOUGH):
            self._sending += 1
            self._tasks.start(self._send_all(self._next()), "etcd-batch")
        return await future

    async def _send_all(self, items: list[_Item]) -> None:
        try:
            while items:
                await self._send(items)
                items = self._next()
        finally:
            self._sending -= 1

    def _next(self) -> list[_Item]:
        """Takes what can go together, the one that waits longest first."""
        batch = _Batch()
        self._waiting = [item for item in self._waiting if not batch.add(item)]
        return batch.items

    async def _send(self, items: list[_Item]) -> None:
        try:
            outcomes = await self._outcomes([item.request for item in items])
            for item, outcome in zip(items, outcomes, strict=True):
                if not item.future.done():
                    item.future.set_result(outcome)
        except Exception as error:
            for item in items:
                if not item.future.done():
                    own = error.again() if isinstance(error, ServiceError) else error
                    item.future.set_exception(own)

    async def _outcomes(self, requests: list[etcd_pb2.TxnRequest]) -> list[Outcome]:
        alone = len(requests) == 1
        combined = (
            requests[0]
            if alone
            else etcd_pb2.TxnRequest(
                success=[etcd_pb2.RequestOp(request_txn=each) for each in requests]
            )
        )
        # Read in the same transaction: whoever registers later reads at a later revision.
        members = combined.success.add().request_range
        members.key, members.range_end = MEMBERS, prefix_end(MEMBERS)
        response = await self._transaction(combined)
        parts = [response] if alone else [each.response_txn for each in response.responses[:-1]]
        found = (
            response.responses[-1].response_range
            if response.succeeded
            else etcd_pb2.RangeResponse()
        )
        revision = response.header.revision
        return [Outcome(part.succeeded, _changed(part), revision, found) for part in parts]


def _item(request: etcd_pb2.TxnRequest, future: asyncio.Future[Outcome]) -> _Item:
    reads = frozenset(compare.key for compare in request.compare)
    size = request.ByteSize()
    alone = size > _MOST_BYTES or max(len(request.success), len(reads)) > _MOST_OPERATIONS
    writes = []
    for operation in request.success:
        if operation.HasField("request_put"):
            writes.append(operation.request_put.key)
        else:
            writes.append(operation.request_delete_range.key)
            alone = alone or bool(operation.request_delete_range.range_end)
    return _Item(request, future, reads, frozenset(writes), size, alone)


def _changed(response: etcd_pb2.TxnResponse) -> bool:
    """Returns whether a transaction changed anything: without a change there is no event to wait for."""
    return response.succeeded and any(
        each.HasField("response_put") or each.response_delete_range.deleted
        for each in response.responses
    )

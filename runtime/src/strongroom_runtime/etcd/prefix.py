"""One process's view of one storage prefix: a watch, and those who keep something in memory by it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.watch import Seen, watch_once
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.storage import CompactedError
from strongroom_runtime.tasks import end

_DELETE = etcd_pb2.Event.DELETE
_RETRY_SECONDS = 0.1


class Listener(Protocol):
    """Keeps something in memory that rests on keys below a prefix."""

    def changed(self, key: bytes, value: bytes | None, revision: int) -> None:
        """Takes a change; None for a deletion. May see one twice, first from this process's own commit."""
        ...

    def forget(self) -> None:
        """Drops everything: changes may have been missed."""
        ...


@dataclass(slots=True)
class MemberLease:
    """Until when, by the monotonic clock, a process may serve from memory: no writer can have given up on it yet."""

    certain_until: float = 0.0


class PrefixView:
    """Follows a prefix and tells listeners.

    While `live` is False changes may be missed, and nothing may be kept in memory. `applied` is a revision up to
    which listeners were told of everything below the prefix, `started` the one behind which no change is missed.
    `generation` changes whenever all is forgotten.
    """

    def __init__(
        self, client: EtcdClient, prefix: bytes, lease: MemberLease, monotonic: Callable[[], float]
    ) -> None:
        self.prefix = prefix
        self._lease = lease
        self._monotonic = monotonic
        self.live = False
        self.generation = 0
        self.applied = 0
        self.started = 0
        self._waived = 0  # up to here writers were told, while nothing was kept, that nobody need be waited for
        self._client = client
        self._listeners: list[Listener] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._following = Repeated(f"the following of {prefix.decode()}")

    def certain(self) -> bool:
        """Whether memory may be served: nothing is missed, and no writer gave up on this process."""
        return self.live and self._monotonic() < self._lease.certain_until

    def listen(self, listener: Listener) -> None:
        """Adds a listener."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begins to follow. Called once this process is a member, so that writers know of it."""
        self._task = asyncio.create_task(self._follow(), name="follow-prefix")

    async def stop(self) -> None:
        """Stops following and makes listeners forget."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)
        self._reset()

    def apply(self, key: bytes, value: bytes | None, revision: int) -> None:
        """Tells listeners of a change."""
        for listener in self._listeners:
            listener.changed(key, value, revision)

    async def reached(self, revision: int) -> None:
        """Returns when listeners know everything up to a revision below the prefix, or keep nothing."""
        if not self.live:
            self._waived = max(self._waived, revision)
        elif self.applied < revision:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, future))
            await future

    async def _follow(self) -> None:
        while True:
            with self._following.turn(), contextlib.suppress(CompactedError):
                try:
                    await self._follow_once()
                finally:
                    self._reset()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _follow_once(self) -> None:
        # Read before the watch begins: what is loaded from now on is at least as new, so that loads and the events
        # behind this revision leave no gap.
        self._waived = 0
        started = (await self._client.range(self.prefix, limit=1)).header.revision
        self.started = self.applied = started
        async for seen in watch_once(self._client, self.prefix, started + 1, self._begin):
            self._take(seen)

    def _begin(self) -> None:
        # The writers of what is still on its way here have returned: answers from before must not be kept.
        self.started = max(self.started, self._waived)
        self.live = True
        self._following.goes_well()

    def _take(self, seen: Seen) -> None:
        """Takes the changes of one revision."""
        revision = seen.revision
        for event in seen.events:
            kv = event.kv
            self.apply(kv.key, None if event.type == _DELETE else kv.value, revision)
        self.applied = revision
        still: list[tuple[int, asyncio.Future[None]]] = []
        for wanted, future in self._waiting:
            if wanted > revision:
                still.append((wanted, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still

    def _reset(self) -> None:
        self.live = False
        self.generation += 1
        for listener in self._listeners:
            listener.forget()
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_result(None)

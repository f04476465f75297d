"""Keeps an etcd from filling up: forgets its history in time, and mends one that is full all the same.

etcd keeps each value that was ever written until it is told to forget those before a revision (compaction). What that
frees is written over, but not given back to the disk (defragmentation does that), and once the file has reached the
quota nothing is written any more, whatever is free in it. See `docs/decisions/0038-room-in-etcd.md`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.repeated import Repeated

log = logging.getLogger(__name__)

KEPT_SECONDS = 3600.0
# Compaction looks at each key that there is, so it is not for every look.
_FORGET_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.05
_MEND_SECONDS = 30.0
_AGAIN_SECONDS = 1.0
# What a compaction or a defragmentation of gigabytes may take.
_TIMEOUT_SECONDS = 300.0
# As many bytes a second as no load was seen to write by far: a look comes before they fill a quarter of the room.
_FASTEST = 100 << 20
_FULL_ALARM = "NOSPACE"
# Of the quota: where a file is nearly full, and below which it must be to be written again.
_NEARLY_FULL = 7 / 8
_MARK = b"cluster/upkeep"


class History:
    """Which revisions there were when, as far back as they are kept.

    Args:
        kept_seconds: for how long.
    """

    def __init__(self, kept_seconds: float = KEPT_SECONDS) -> None:
        self.newest = 0
        self._kept_seconds = kept_seconds
        self._known: deque[tuple[float, int]] = deque()

    def add(self, now: float, revision: int) -> None:
        """Adds a revision that is there now."""
        if revision < self.newest:
            self._known.clear()  # etcd was restored: those from before are not there yet
        self.newest = revision
        self._known.append((now, revision))

    def outdated(self, now: float) -> int:
        """Returns the last revision that is older than what is kept; 0 where there is none."""
        old = [revision for at, revision in self._known if at <= now - self._kept_seconds]
        return old[-1] if old else 0

    def half(self) -> int:
        """Returns a revision with about as many after it as before it; 0 where there is none."""
        if not self._known:
            return 0
        middle = (self._known[0][1] + self._known[-1][1]) / 2
        return next(revision for _, revision in self._known if revision >= middle)

    def forget(self, revision: int) -> None:
        """Forgets the revisions up to one."""
        while self._known and self._known[0][1] <= revision:
            self._known.popleft()


class Upkeep:
    """Looks after one etcd of a single member.

    The history is kept for an hour, or as much of it as has room in half of what the data leave of the quota.

    Args:
        config: how to reach it, as a user who may do everything there.
        quota_bytes: its quota.
        monotonic: seconds that no clock step changes.
        history: the revisions that are known.
    """

    def __init__(
        self,
        config: EtcdConfig,
        quota_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
        history: History | None = None,
    ) -> None:
        patient = EtcdConfig(config.endpoints, config.identity, config.login, _TIMEOUT_SECONDS)
        self._client = EtcdClient(patient)
        self._quota = quota_bytes
        self._monotonic = monotonic
        self._history = history or History()
        self._forgot_at = monotonic()
        self._mended_at, self._mended = float("-inf"), 0
        self._too_large = quota_bytes * _NEARLY_FULL
        # What was in use after the last compaction, at the least: the data, and what of the history is kept.
        self._kept = 0

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def run(self) -> None:
        """Works until cancelled."""
        work = Repeated("the upkeep of etcd")
        while True:
            pause = _AGAIN_SECONDS
            with work.turn():
                pause = await self.look()
            await asyncio.sleep(pause)

    async def begin(self) -> None:
        """Makes room before anything writes: of what was kept before the start, nobody knows how old it is.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        status = await self._client.status()
        if _is_full(status):
            await self._mend(status)
            return
        await self._mark(status.header.revision)
        if status.db_size > self._too_large or status.db_size_in_use > self._quota / 2:
            await self._forget(self._history.newest, "nobody knows how old it is")

    async def look(self) -> float:
        """Does what is due; returns after how many seconds to look again.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        status = await self._client.status()
        now, in_use = self._monotonic(), status.db_size_in_use
        if _is_full(status):
            # In vain before something was deleted, and nothing else is done meanwhile.
            if now > self._mended_at + _MEND_SECONDS and status.header.revision != self._mended:
                await self._mend(status)
            return _AGAIN_SECONDS
        await self._mark(status.header.revision)
        self._kept = min(self._kept or in_use, in_use)
        left = self._quota - status.db_size
        if status.db_size - in_use > left and status.db_size > self._quota * _NEARLY_FULL:
            log.warning("etcd's file is large, and much in it is free: defragmenting it")
            await self._client.defragment()
            self._too_large = self._quota * _NEARLY_FULL
        elif status.db_size > self._too_large:
            # Again each time that half of what is left is used up.
            self._too_large = status.db_size + left / 2
            await self._forget(self._history.newest, "the file is large")
        # Half of it goes where it takes a third of the room beyond what the last time left: it settles at half of it.
        elif in_use > self._kept + (self._quota - self._kept) / 3:
            await self._forget(self._history.half(), "it takes much room")
        elif now > self._forgot_at + _FORGET_SECONDS:
            await self._forget(self._history.outdated(now), "it is old")
        room = min(left, self._quota - in_use)
        return min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, room / 4 / _FASTEST))

    async def _mark(self, revision: int) -> None:
        """Remembers when there was which revision, if there is a new one, by a revision of its own.

        Older releases lose the deletions of the very revision that is compacted to, for watches that go on from it
        (etcd issue 18089). A mark deletes nothing.
        """
        if revision == self._history.newest:
            return
        request = etcd_pb2.TxnRequest()
        request.success.add().request_put.key = _MARK
        marked = await self._client.transaction(request)
        self._history.add(self._monotonic(), marked.header.revision)

    async def _forget(self, revision: int, why: str) -> None:
        self._forgot_at = self._monotonic()
        if not revision:
            return
        self._history.forget(revision)
        await self._client.compact(revision)
        self._kept = (
            await self._client.status()
        ).db_size_in_use  # at most: etcd counts it a while later
        log.info("a part of etcd's history was forgotten", extra={"reason": why})

    async def _mend(self, status: etcd_pb2.StatusResponse) -> None:
        """Makes what room there is in an etcd that is full, and lets it be written again if that is enough."""
        revision = status.header.revision
        self._mended_at, self._mended = self._monotonic(), revision
        self._history.forget(revision)
        await self._client.compact(revision)
        await self._client.defragment()
        status = await self._client.status()
        self._kept = status.db_size_in_use
        if status.db_size < self._quota * _NEARLY_FULL:
            self._too_large = self._quota * _NEARLY_FULL
            await self._client.disarm()
            log.warning("etcd was full; there is room again, and it takes changes")
        else:
            log.error(
                "etcd is full of data that are in use, and refuses deletions too: start it with a larger quota",
                extra={"in_use": status.db_size_in_use, "quota": self._quota},
            )


def _is_full(status: etcd_pb2.StatusResponse) -> bool:
    return any(_FULL_ALARM in error for error in status.errors)

"""The work that nobody asks for: revoking what has ended, and what could not be revoked before."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterable

from strongroom_dbcreds.config import Config
from strongroom_dbcreds.leases.revoke import Revoker
from strongroom_dbcreds.leases.storage import Leases, Queue
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.shared_clock import SharedClock

_STOP_SECONDS = 2.0
# Finding the queues takes etcd longer the more leases there are: a twentieth of the time may be spent on it.
_SHARE, _LONGEST_SECONDS = 20, 2.0


class Expiry:
    """Takes leases from the queues of due ones. Every replica may; a claim in the record settles who does what.

    Each connection has a queue and a number of places of its own: a database that hangs or is slow keeps no lease of
    another one waiting. Memory and start do not depend on how many leases there are: it looks at the oldest of each.
    """

    def __init__(
        self, leases: Leases, revoker: Revoker, clock: SharedClock, config: Config
    ) -> None:
        self._leases = leases
        self._revoker = revoker
        self._clock = clock
        self._config = config
        self._queues: list[Queue] = []
        self._queues_until = 0.0
        self._running: dict[Queue, set[str]] = {}  # keys of leases that have a place
        self._tasks: set[asyncio.Task[None]] = set()
        self._probes: dict[Queue, asyncio.Task[None]] = {}
        # Databases that were probed in vain: when to probe again, and the wait before that.
        self._waits: dict[Queue, tuple[float, float]] = {}
        self._revoking = Repeated("the revocation of leases that are due")
        self._probing = Repeated("the probing of databases")

    async def run(self) -> None:
        """Works until cancelled; ends what it began before it returns."""
        await self._clock.found()
        work = Repeated("the expiry of leases")
        try:
            while True:
                # Before what may fail at once, as it does while sealed: it would not rest, and let nothing else run.
                self._revoker.wake.clear()
                with work.turn():
                    await self.step(await self._known_queues())
                await self._rest()
        finally:
            await _end(self._tasks)

    async def step(self, queues: Iterable[Queue] | None = None) -> None:
        """Begins what is due in some queues, None for all there are, as far as their databases have room."""
        queues = await self._leases.queues() if queues is None else list(queues)
        self._revoking.only(queues)
        now = self._clock.now()
        await asyncio.gather(*(self._begin(queue, now) for queue in queues))

    async def _known_queues(self) -> list[Queue]:
        began = time.monotonic()
        if began >= self._queues_until:
            self._queues = await self._leases.queues()
            took = time.monotonic() - began
            self._queues_until = began + min(took * _SHARE, _LONGEST_SECONDS)
        return self._queues

    async def _begin(self, queue: Queue, now: float) -> None:
        running, places = self._running.get(queue, set()), self._config.parallel
        if len(running) >= places:
            return
        due = await self._leases.due(queue, now, 2 * places)
        waiting = [(time, key) for time, key in due if key not in running]
        # Replicas that look at one page begin at different places of it.
        random.shuffle(waiting)
        batch = {key: time for time, key in waiting[: places - len(running)]}
        if batch:
            self._start(queue, batch)

    def _start(self, queue: Queue, batch: dict[str, float]) -> None:
        """Works on leases together. Each gives its place free when its user is gone, or cannot be removed."""
        running, left = self._running.setdefault(queue, set()), set(batch)
        running |= left

        def free(keys: Collection[str]) -> None:
            running.difference_update(left.intersection(keys))
            left.difference_update(keys)
            if not running and self._running.get(queue) is running:
                del self._running[queue]

        def over(keys: Collection[str]) -> None:
            free(keys)
            if keys:
                self._revoker.wake.set()

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            # What failed as a whole, or does not open, would a moment later as well: nobody is woken for it.
            free(list(left))

        task = asyncio.create_task(self._batch(queue, batch, over), name="revoke")
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def settle(self) -> None:
        """Waits until what was begun is over."""
        while tasks := [*self._tasks, *self._probes.values()]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def probe(self) -> None:
        """Tries one lease of each database that was away; where it is back, all the others. Works until cancelled."""
        await self._clock.found()
        work = Repeated("the search for databases that are back")
        try:
            while True:
                with work.turn():
                    await self._leases.refile()
                    await self.probe_once()
                await asyncio.sleep(self._config.probe_seconds * random.uniform(0.7, 1.3))  # noqa: S311
        finally:
            await _end(self._probes.values())

    async def probe_once(self) -> None:
        """Begins to probe each database that was away, but those that were probed in vain a moment ago.

        A probe of a database that hangs takes long, and keeps nobody waiting.
        """
        failing = set(await self._leases.failing())
        for gone in self._waits.keys() - failing:
            del self._waits[gone]
        self._probing.only(failing)
        now = self._clock.now()
        for queue in failing - self._probes.keys():
            if self._waits.get(queue, (0.0, 0.0))[0] <= now:
                task = asyncio.create_task(self._probe_safely(queue), name="probe")
                self._probes[queue] = task
                task.add_done_callback(lambda _, queue=queue: self._probes.pop(queue, None))  # type: ignore[misc]

    async def _probe_safely(self, queue: Queue) -> None:
        with self._probing.turn(queue):
            await self._probe(*queue)

    async def _probe(self, mount: str, database: str) -> None:
        back = False
        after = ""
        while keys := await self._leases.failing_of(mount, database, after):
            for key in keys if not back else ():
                error = await self._try_if_away(key)
                if error:
                    self._wait_longer(mount, database)
                    return
                if error is not None:
                    back = True
                    break
            if back:
                await self._take_all(keys)
            after = keys[-1]
        self._waits.pop((mount, database), None)

    async def _try_if_away(self, key: str) -> str | None:
        """Tries a lease whose database was away; what failed for another reason waits for its time."""
        kept = await self._leases.get(key)
        if kept is None or not kept.lease.away:
            return None
        return await self._revoker.revoke(key, early=True, insist=True)

    async def _take_all(self, keys: list[str]) -> None:
        """Revokes those of a page that wait for a database which is back."""
        found, _ = await self._revoker.read(keys)
        await self._revoker.revoke_page([kept.lease.key for kept in found if kept.lease.away])

    def _wait_longer(self, mount: str, database: str) -> None:
        """Doubles the wait for a database that is still away, up to a bound."""
        _, before = self._waits.get((mount, database), (0.0, self._config.probe_seconds / 2))
        wait = min(before * 2, self._config.longest_probe_seconds)
        self._waits[(mount, database)] = (self._clock.now() + wait, wait)

    async def _batch(
        self, queue: Queue, batch: dict[str, float], over: Callable[[Collection[str]], None]
    ) -> None:
        with self._revoking.turn(queue):
            found, broken = await self._revoker.read(list(batch))
            late = {
                kept.lease.key: _ms(kept.lease.due) - _ms(batch[kept.lease.key]) for kept in found
            }
            ready = [kept for kept in found if not late[kept.lease.key]]
            # Entries that lead nowhere go, unless a lease has just moved.
            known = {key for key in late if late[key] <= 0}.union(broken)
            self._leases.pass_over(queue, [(batch[key], key) for key in broken])
            if stale := [(time, key) for key, time in batch.items() if key not in known]:
                await self._leases.forget_due(queue, stale)
            over(batch.keys() - {kept.lease.key for kept in ready} - set(broken))
            await self._revoker.revoke_read(ready, over=over)

    async def _rest(self) -> None:
        """Waits for a moment, or until somebody wakes it: who adds something, or makes room."""
        seconds = self._config.expiry_seconds * random.uniform(0.7, 1.3)  # noqa: S311
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._revoker.wake.wait()


def _ms(time: float) -> int:
    return round(time * 1000)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Ends tasks. What is nearly done is done; what is not stays recorded, and is taken up by the next who comes."""
    running = list(tasks)
    if running:
        await asyncio.wait(running, timeout=_STOP_SECONDS)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

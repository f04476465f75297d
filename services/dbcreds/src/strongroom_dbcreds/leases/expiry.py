"""The work that nobody asks for: revoking what has ended, and what could not be revoked before."""

import asyncio
import contextlib
import logging
import random

from strongroom_dbcreds.config import Config
from strongroom_dbcreds.leases.clock import SharedClock
from strongroom_dbcreds.leases.revoke import Revoker
from strongroom_dbcreds.leases.storage import PAGE, Leases
from strongroom_runtime.errors import ServiceError

log = logging.getLogger(__name__)

_STOP_SECONDS = 2.0


class Expiry:
    """Takes leases from the index of due ones. Every replica may run it; a claim in the record settles who does what.

    Its memory and its start do not depend on how many leases there are: it looks at a page of the oldest.
    """

    def __init__(
        self, leases: Leases, revoker: Revoker, clock: SharedClock, config: Config
    ) -> None:
        self._leases = leases
        self._revoker = revoker
        self._clock = clock
        self._config = config
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        # Databases that were probed in vain, by (mount, connection): when to probe again, and the wait before that.
        self._waits: dict[tuple[str, str], tuple[float, float]] = {}

    async def run(self) -> None:
        """Works until cancelled; ends what it began before it returns."""
        await self._clock.found()
        try:
            while True:
                busy = False
                try:
                    busy = await self.step()
                except ServiceError as error:
                    log.info("expiry waits", extra={"kind": error.kind.value})
                except Exception as error:
                    # A bug, or a record that does not open: the work for all others goes on.
                    log.error("expiry failed", extra={"error": type(error).__name__})
                await self._rest(busy)
        finally:
            await self._end_all()

    async def step(self) -> bool:
        """Begins what is due, as far as there is room; returns whether there may be more at once."""
        self._ended.clear()
        self._revoker.wake.clear()
        due = await self._leases.due(self._clock.now())
        # Replicas that look at one page begin at different places of it.
        waiting = [(time, key) for time, key in due if key not in self._running]
        random.shuffle(waiting)
        for time, key in waiting:
            if len(self._running) >= self._config.parallel:
                break
            task = asyncio.create_task(self._one(time, key), name=f"revoke-{key[:6]}")
            self._running[key] = task
            task.add_done_callback(lambda _, key=key: self._over(key))  # type: ignore[misc]
        return len(due) == PAGE or len(waiting) > len(self._running)

    async def settle(self) -> None:
        """Waits until what was begun is over."""
        while self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def probe(self) -> None:
        """Tries one lease of each database that was away; where it is back, all the others. Works until cancelled."""
        await self._clock.found()
        while True:
            try:
                await self.probe_once()
            except ServiceError as error:
                log.info("probing waits", extra={"kind": error.kind.value})
            except Exception as error:
                log.error("probing failed", extra={"error": type(error).__name__})
            await asyncio.sleep(self._config.probe_seconds * random.uniform(0.7, 1.3))  # noqa: S311

    async def probe_once(self) -> None:
        """Probes each database that was away, at the same time, but those that were probed in vain a moment ago."""
        failing = set(await self._leases.failing())
        for gone in self._waits.keys() - failing:
            del self._waits[gone]
        now = self._clock.now()
        ready = [each for each in failing if self._waits.get(each, (0.0, 0.0))[0] <= now]
        await asyncio.gather(*(self._probe(mount, database) for mount, database in ready))

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
        slots = asyncio.Semaphore(self._config.parallel)

        async def one(key: str) -> None:
            async with slots:
                kept = await self._leases.get(key)
                if kept is not None and kept.lease.away:
                    await self._revoker.revoke(key, early=True)

        await asyncio.gather(*(one(key) for key in keys))

    def _wait_longer(self, mount: str, database: str) -> None:
        """Doubles the wait for a database that is still away, up to a bound."""
        _, before = self._waits.get((mount, database), (0.0, self._config.probe_seconds / 2))
        wait = min(before * 2, self._config.longest_probe_seconds)
        self._waits[(mount, database)] = (self._clock.now() + wait, wait)

    async def _one(self, time: float, key: str) -> None:
        try:
            kept = await self._leases.get(key)
            if kept is None or round(kept.lease.due * 1000) != round(time * 1000):
                await self._stale(time, key)
                return
            await self._revoker.revoke(key)
        except ServiceError as error:
            log.info("a due lease waits", extra={"kind": error.kind.value})
        except Exception as error:
            log.error("a due lease cannot be worked on", extra={"error": type(error).__name__})

    async def _stale(self, time: float, key: str) -> None:
        """Removes an index entry that leads nowhere, unless a lease has just moved."""
        kept = await self._leases.get(key)
        if kept is None or round(kept.lease.due * 1000) > round(time * 1000):
            await self._leases.forget_due(time, key)

    def _over(self, key: str) -> None:
        self._running.pop(key, None)
        self._ended.set()

    async def _rest(self, busy: bool) -> None:
        """Waits until there is room where there was too much, else for a moment or until somebody wakes it."""
        if busy and len(self._running) < self._config.parallel:
            await asyncio.sleep(0)
            return
        event = self._ended if busy else self._revoker.wake
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.expiry_seconds * random.uniform(0.7, 1.3)):  # noqa: S311
                await event.wait()

    async def _end_all(self) -> None:
        running = list(self._running.values())
        if running:
            # What is nearly done is done; what is not stays recorded, and is taken up by the next who comes.
            await asyncio.wait(running, timeout=_STOP_SECONDS)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

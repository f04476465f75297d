"""What is left to do after a token ended: every step may be repeated, by any replica, after any crash."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from strongroom_auth.tokens.tokens import Tokens
from strongroom_runtime.clock import Clock
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.storage import ConflictError

_PARALLEL = 16  # jobs that have just begun, and as many that take long
_QUICK_SECONDS = 2.0  # what takes longer takes long
_ATTEMPT_SECONDS = 60.0  # what an attempt did so far is kept, and the next one goes on there
_LONGEST_WAIT_SECONDS = 300.0
_EARLY_SECONDS = 2.0  # how often one job that waits is tried before its time

# (token id): removes what belonged to a token elsewhere; raises ServiceError where it could not yet.
Listener = Callable[[str], Awaitable[None]]


class Cleanup:
    """Removes tokens whose time is over, descendants of revoked ones, and what belonged to them.

    None of it matters for validity: a token is invalid from the moment its time is over, or it or an ancestor is
    revoked. It matters for what tokens obtained, and for room.
    """

    def __init__(
        self, tokens: Tokens, listeners: Sequence[Listener], seconds: float, clock: Clock
    ) -> None:
        self._tokens = tokens
        self._records = tokens.records
        self._listeners = listeners
        self._seconds = seconds
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        # Jobs that take long have places of their own: what a token with many leases obtained takes minutes to end,
        # and a service that hangs for some tokens may not hang for others.
        self._long: set[str] = set()
        self._room = asyncio.Event()
        self._did = False
        # Jobs that failed, by token: when to try again, by the monotonic clock, and the wait before that.
        self._waits: dict[str, tuple[float, float]] = {}
        self._early_at = 0.0
        self._jobs = Repeated("the removal of what tokens obtained", logging.WARNING)

    async def run(self) -> None:
        """Works until cancelled; what fails is tried again."""
        try:
            # Apart: jobs that take long must not keep tokens from ending, nor what those obtained.
            await asyncio.gather(
                self._repeat("the removal of tokens", self._end_expired),
                self._repeat("the looking for what tokens left", self._work),
                self._list_all(),
            )
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def step(self) -> bool:
        """Does all the work but what failed a moment ago; returns whether there may be more at once."""
        ended = await self._end_expired()
        await self._begin()
        await asyncio.gather(*self._running.values())
        return self._finished() or ended

    async def _list_all(self) -> None:
        """Puts tokens that an earlier version made among the leases; tried until it is done."""
        work = Repeated("the listing of tokens")
        while True:
            with work.turn():
                await self._records.list_all()
                return
            await asyncio.sleep(self._seconds * random.uniform(0.7, 1.3))  # noqa: S311

    async def _repeat(self, name: str, work: Callable[[], Awaitable[bool]]) -> None:
        """Works again and again; at once where there may be more."""
        repeated = Repeated(name)
        while True:
            busy = False
            with repeated.turn():
                busy = await work()
            # Replicas that started together should not do the same work at the same moment for ever.
            await asyncio.sleep(0 if busy else self._seconds * random.uniform(0.7, 1.3))  # noqa: S311

    async def _work(self) -> bool:
        await self._begin()
        return self._finished()

    def _finished(self) -> bool:
        """Returns whether a job was done since this was last asked: its end may be the beginning of others."""
        finished, self._did = self._did, False
        return finished

    async def _end_expired(self) -> bool:
        """Ends a page of tokens whose time is over; returns whether there were any."""
        ended = False
        for token_id, going_past in await self._records.due(self._tokens.now()):
            with going_past:
                ended = await self._expire(token_id) or ended
        return ended

    async def _begin(self) -> None:
        """Begins each job as soon as there is a place for it.

        All are looked at, however many fail or take long: none keeps those behind it waiting.
        """
        after, seen, early = "", set[str](), self._early()
        while jobs := await self._records.jobs(after):
            for token_id, parent in jobs:
                seen.add(token_id)
                due, _ = self._waits.get(token_id, (0.0, 0.0))
                is_time = self._clock.monotonic() >= due or token_id == early
                if token_id not in self._running and is_time:
                    await self._start(token_id, parent)
            after = jobs[-1][0]
        for gone in self._waits.keys() - seen:
            del self._waits[gone]
        self._jobs.only(seen)

    def _early(self) -> str:
        """Returns now and then a job to try before its time, each in turn: what it waits for may be back."""
        now = self._clock.monotonic()
        waiting = self._waits.keys() - self._running.keys()
        if now < self._early_at or not waiting:
            return ""
        self._early_at = now + _EARLY_SECONDS
        return min(waiting, key=lambda token_id: self._waits[token_id])

    async def _start(self, token_id: str, parent: str) -> None:
        while len(self._running) - len(self._long) >= _PARALLEL:
            self._room.clear()
            await self._room.wait()
        task = asyncio.create_task(self._try(token_id, parent), name="token-cleanup-job")
        self._running[token_id] = task
        task.add_done_callback(lambda _: self._over(token_id))

    def _over(self, token_id: str) -> None:
        self._running.pop(token_id, None)
        self._long.discard(token_id)
        self._room.set()

    def _takes_long(self, token_id: str, limit: asyncio.Timeout) -> None:
        """Gives the place of a job to others, and the job another one; or ends it, where there is none."""
        if len(self._long) < _PARALLEL:
            self._long.add(token_id)
            self._room.set()
        elif not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time())

    async def _try(self, token_id: str, parent: str) -> None:
        """Makes one attempt at a job, which ends in time; what fails is put off, longer each time."""
        limit = asyncio.timeout(_ATTEMPT_SECONDS)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_QUICK_SECONDS, self._takes_long, token_id, limit)
        try:
            with self._jobs.turn(token_id):
                async with limit:
                    await self._clean(token_id, parent)
                self._succeeded(token_id)
                return
        finally:
            timer.cancel()
        _, before = self._waits.get(token_id, (0.0, self._seconds / 2))
        wait = min(before * 2, _LONGEST_WAIT_SECONDS)
        self._waits[token_id] = (self._clock.monotonic() + wait, wait)

    def _succeeded(self, token_id: str) -> None:
        self._did = True
        if self._waits.pop(token_id, None) is not None:
            # What it waited for is back: the others may have waited for the same.
            self._waits = {each: (0.0, wait) for each, (_, wait) in self._waits.items()}

    async def _expire(self, token_id: str) -> bool:
        found = await self._records.get(token_id)
        if found is None or not found[0].expires or found[0].expires > self._tokens.now():
            return False  # renewed, or another replica was faster
        with contextlib.suppress(ConflictError):
            await self._records.remove(*found)
            return True
        return False

    async def _clean(self, token_id: str, parent: str) -> None:
        found = await self._records.get(token_id)
        severed = found is not None and found[0].severed
        if not severed:
            while children := await self._records.children(token_id):
                for child in children:
                    await self._tokens.revoke(child)
                    await self._records.forget_index(child, parent=token_id)
        for listener in self._listeners:
            await listener(token_id)
        if parent and not severed:
            await self._records.forget_index(token_id, parent=parent)
            await self._drop_if_childless(parent)
        if severed:
            await self._drop_if_childless(token_id)
        await self._records.finish_job(token_id)

    async def _drop_if_childless(self, token_id: str) -> None:
        """Removes what is left of a token that was revoked alone, once its last child is gone; so on upwards."""
        while token_id and not await self._records.children(token_id):
            found = await self._records.get(token_id)
            if found is None or not found[0].severed:
                return
            try:
                await self._records.drop_severed(token_id, found[1])
            except ConflictError:
                return
            parent = found[0].parent
            if parent:
                await self._records.forget_index(token_id, parent=parent)
            token_id = parent

"""One clock for all replicas, whatever their machines' clocks say.

A replica that starts asks those that run; one of them answers with its time, and from then on the new one counts by
its own monotonic clock (Cristian, "Probabilistic clock synchronization", 1989: an answer is off by no more than half
the round trip). Where none answers the replica begins a new timeline, at its machine's time or at the last time
known, whichever is later. Where two timelines meet, the elder is the one. See `docs/decisions/0019-one-clock.md`.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping

import msgspec

from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.storage import (
    CompactedError,
    ConflictError,
    Path,
    Plain,
    Store,
    Transaction,
)

_FOLDER: Path = (Plain("clock"),)
_TIME: Path = (*_FOLDER, Plain("time"))
_QUESTION: Path = (*_FOLDER, Plain("question"))
_AGAIN_SECONDS = 600.0
# How many times its patience a start may take a request. After a crash of all, the first write waits until the leases
# of those who died have ended.
_STARTS = 30


class _Told(msgspec.Struct, frozen=True):
    """A time that a replica told.

    Args:
        time: as it was when this was written.
        began: when the timeline began: the elder of two is the one.
        answer: the question that it answers.
    """

    time: float
    began: float
    answer: str


_decode = msgspec.msgpack.Decoder(_Told).decode


class SharedClock:
    """The time by which what a service gives begins and ends, tokens and leases; a `Clock`.

    Args:
        store: where questions and answers go.
        clock: of this machine.
        patience: how many seconds to wait for an answer.
    """

    def __init__(self, store: Store, clock: Clock, patience: float) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience
        self._began = 0.0
        self._base: float | None = None
        self._base_at = 0.0
        self._known = asyncio.Event()

    def now(self) -> float:
        """Returns the time.

        Raises:
            ServiceError: UNAVAILABLE until this replica knows it.
        """
        if self._base is None:
            raise ServiceError(Kind.UNAVAILABLE, "the service is starting")
        return self._base + self._clock.monotonic() - self._base_at

    def monotonic(self) -> float:
        """Returns seconds that no clock step changes, of this machine."""
        return self._clock.monotonic()

    async def found(self) -> None:
        """Waits until this replica knows the time."""
        await self._known.wait()

    async def ready(self) -> None:
        """Waits as `found`, but not for ever: for requests.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        if self._base is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience * _STARTS):
                await self.found()
        self.now()

    def forget(self) -> None:
        """Forgets the time: who starts again asks again."""
        self._base = None
        self._known.clear()

    async def run(self) -> None:
        """Finds out the time, answers others, and asks now and then again. Works until cancelled."""
        work = Repeated("the finding of the time")
        while True:
            with work.turn(), contextlib.suppress(CompactedError):
                asked_at = await self.find()
                work.goes_well()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_SECONDS):
                        await self._answer_others(asked_at + 1)
                continue
            await asyncio.sleep(self._patience)

    async def find(self) -> int:
        """Finds out the time, from those who know it or else from this machine.

        Returns:
            The revision of the question.
        """
        asked: dict[str, float] = {}
        while True:
            question = secrets.token_hex(8)
            asked[question] = self._clock.monotonic()
            asked_at = await self._store.commit(Transaction(puts={_QUESTION: question.encode()}))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    while not await self._answered(asked):
                        await asyncio.sleep(self._patience / 50)
                    return asked_at
            entry = await self._store.get(_TIME, linearizable=True)
            if entry is not None and entry.revision > asked_at:
                continue  # somebody is there, and answered somebody else, or slowly
            if self._base is None:
                await self._begin(_decode(entry.value).time if entry is not None else 0.0)
            return asked_at

    async def _answered(self, asked: Mapping[str, float]) -> bool:
        """Takes an answer to one of the questions that were asked, if there is one by now."""
        entry = await self._store.get(_TIME)
        if entry is None:
            return await self._first()
        told = _decode(entry.value)
        if told.answer not in asked:
            return False
        trip = self._clock.monotonic() - asked[told.answer]
        self._set(told.time + trip / 2, told.began)
        return True

    async def _first(self) -> bool:
        """Begins the first timeline of all: nobody can know the time."""
        now = self._clock.now()
        told = msgspec.msgpack.encode(_Told(now, now, ""))
        try:
            await self._store.commit(Transaction(expect={_TIME: 0}, puts={_TIME: told}))
        except ConflictError:
            return False
        self._set(now, now)
        return True

    async def _begin(self, last: float) -> None:
        """Begins a timeline. It never goes back behind a time that was told."""
        now = max(self._clock.now(), last)
        self._set(now, now)
        await self._tell("")

    async def _answer_others(self, from_revision: int) -> None:
        async for changes in self._store.watch(_FOLDER, from_revision=from_revision):
            for event in changes.events:
                if event.path == _QUESTION and event.value:
                    await self._tell(event.value.decode())
                elif event.path == _TIME and event.value:
                    await self._compare(_decode(event.value))

    async def _compare(self, told: _Told) -> None:
        """Takes the time of an elder timeline; tells those of a younger one."""
        if told.began < self._began:
            self._set(told.time, told.began)
        elif told.began > self._began:
            await self._tell("")

    async def _tell(self, answer: str) -> None:
        told = _Told(self.now(), self._began, answer)
        await self._store.commit(Transaction(puts={_TIME: msgspec.msgpack.encode(told)}))

    def _set(self, now: float, began: float) -> None:
        self._base, self._base_at, self._began = now, self._clock.monotonic(), began
        self._known.set()

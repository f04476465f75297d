"""Removes what nobody needs: versions of a key whose writer died."""

import asyncio
import logging
import random

from strongroom_runtime.clock import Clock
from strongroom_runtime.repeated import Repeated
from strongroom_transit.storage import Begun, Keys

log = logging.getLogger(__name__)

_LOOKS = 10  # in the time after which somebody is taken for dead


class Leftovers:
    """Looks at what is being written, and removes what has been for too long. Every replica may.

    How long is by this process's own monotonic clock, so that no clocks have to agree.

    Args:
        keys: of all mounts.
        clock: whose monotonic time counts.
        seconds: after how long whoever writes is taken for dead.
    """

    def __init__(self, keys: Keys, clock: Clock, seconds: float) -> None:
        self._keys = keys
        self._clock = clock
        self._seconds = seconds
        self._seen: dict[Begun, float] = {}

    async def run(self) -> None:
        """Looks again and again, for ever."""
        work = Repeated("the removal of leftovers")
        while True:
            await asyncio.sleep(self._seconds / _LOOKS * random.uniform(0.5, 1.0))  # noqa: S311
            with work.turn():
                await self.once()

    async def once(self) -> int:
        """Looks once; returns how many keys that were never put it has removed."""
        now, done = self._clock.monotonic(), 0
        self._seen = {each: self._seen.get(each, now) for each in await self._keys.begun()}
        for begun, since in self._seen.items():
            if now - since >= self._seconds and await self._keys.undo(begun):
                log.info("removed what was left of a restore", extra={"mount": begun.mount})
                done += 1
        return done

"""Rotates keys whose time has come. Every replica looks; the transaction that writes lets one of them win."""

import asyncio
import logging
import random

from strongroom_runtime.clock import Clock
from strongroom_runtime.repeated import Repeated
from strongroom_transit.creation import Maker
from strongroom_transit.storage import Keys


class Rotation:
    """Finds keys by the time-ordered index, and rotates them.

    Args:
        keys: of all mounts.
        maker: makes versions.
        clock: says what is due.
        seconds: how often to look.
    """

    def __init__(self, keys: Keys, maker: Maker, clock: Clock, seconds: float) -> None:
        self._keys = keys
        self._maker = maker
        self._clock = clock
        self._seconds = seconds
        self._rotating = Repeated("the rotation of keys", logging.WARNING)

    async def run(self) -> None:
        """Looks again and again, for ever. Replicas do not look at the same moment."""
        work = Repeated("the looking for keys to rotate")
        while True:
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            with work.turn():
                await self.once()

    async def once(self) -> int:
        """Rotates what is due; returns how many this replica did. What fails is tried again next time."""
        done, due = 0, set()
        for mount, name, going_past in await self._keys.due(self._clock.now()):
            due.add((mount, name))
            with self._rotating.turn((mount, name)), going_past:
                done += await self._maker.rotate_if_due(mount, name)
        self._rotating.only(due)
        return done

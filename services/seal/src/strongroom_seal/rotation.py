"""Terms of the key ring: begun on request, or when the policy asks for it."""

import asyncio
from typing import NoReturn

import msgspec

from strongroom_runtime.clock import Clock
from strongroom_runtime.repeated import Repeated
from strongroom_seal.domain.keys import MasterRing, RotationPolicy
from strongroom_seal.seal import Seal


class Rotation:
    """Begins terms and keeps the policy."""

    def __init__(self, seal: Seal, clock: Clock) -> None:
        self._seal = seal
        self._clock = clock

    async def rotate(self) -> None:
        """Begins a new term.

        Raises:
            ServiceError: SEALED.
        """
        await self._seal.change_ring(lambda ring, at: ring.rotated(self._clock.now(), at))

    async def set_policy(
        self, max_operations: int | None, interval: int | None, enabled: bool | None
    ) -> None:
        """Changes what is given of the policy.

        Raises:
            ServiceError: INVALID for values out of bounds; SEALED.
        """
        given = {"max_operations": max_operations, "interval": interval, "enabled": enabled}
        wanted = {name: value for name, value in given.items() if value is not None}

        def change(ring: MasterRing, _: int) -> MasterRing:
            policy: RotationPolicy = msgspec.structs.replace(ring.policy, **wanted)
            return msgspec.structs.replace(ring, policy=policy.checked())

        await self._seal.change_ring(change)

    async def rotate_if_due(self) -> None:
        """Begins a new term if the policy asks for it. Of several processes at once one does.

        Raises:
            ServiceError: SEALED.
        """

        def change(ring: MasterRing, at: int) -> MasterRing | None:
            now = self._clock.now()
            return ring.rotated(now, at) if ring.is_due(now, at) else None

        await self._seal.change_ring(change)

    async def run(self, seconds: float) -> NoReturn:
        """Looks at the policy every so often, until cancelled."""
        work = Repeated("the change of the term")
        while True:
            await asyncio.sleep(seconds)
            if self._seal.sealed:
                continue
            with work.turn():
                await self.rotate_if_due()

"""Making keys and versions: decided on a key as it is, made beside the event loop, written in one transaction."""

import asyncio
import uuid

import msgspec

from strongroom_runtime.clock import Clock
from strongroom_transit.domain.keys import Key, check_name, check_new
from strongroom_transit.domain.kinds import Family, KeyType
from strongroom_transit.domain.material import Version, new_version
from strongroom_transit.storage import Change, Keys


class Maker:
    """Makes keys, and versions of keys.

    Args:
        keys: of all mounts.
        clock: dates versions.
    """

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def create(self, mount: str, name: str, key: Key) -> tuple[Key, bool]:
        """Makes a key; returns what there is then, and whether it was made now.

        Raises:
            ServiceError: INVALID where it cannot be as it is to be made.
        """
        check_name(name)
        if key.kind.family is Family.HMAC and not key.key_size:
            key = msgspec.structs.replace(key, key_size=key.kind.size)
        check_new(key)
        made: list[Version] = []

        async def decide(before: Key | None) -> Change | None:
            if before is not None:
                made.clear()
                return None
            if not made:
                made.append(await self.version(key.kind, key.key_size))
            return Change(key.with_version(self._clock.now()), {1: made[0]})

        after = await self._keys.change(mount, name, decide)
        return after or key, bool(made)

    async def rotate(self, mount: str, name: str) -> Key | None:
        """Adds a version; returns the key as it is then, None where there is none.

        Raises:
            ServiceError: INVALID where the key may not be rotated.
        """
        made: list[Version] = []

        async def decide(before: Key | None) -> Change | None:
            if before is None:
                return None
            before.check_rotation()
            if not made:
                made.append(await self.version(before.kind, before.key_size))
            after = before.with_version(self._clock.now())
            return Change(after, {after.latest: made[0]})

        return await self._keys.change(mount, name, decide)

    async def rotate_if_due(self, mount: str, name: str) -> bool:
        """Adds a version if the key is due for it; returns whether it was.

        Several replicas may try: the settings say when the next rotation is, and go with the version in one
        transaction, so that all but one of them find that it is no longer due.
        """
        made: list[Version] = []
        rotated = False

        async def decide(before: Key | None) -> Change | None:
            nonlocal rotated
            now = self._clock.now()
            rotated = False
            if before is None or before.soft_deleted or not 0 < before.rotate_at <= now:
                return None
            rotated = before.rotates_by_itself
            if not rotated:  # restored before that was looked at
                return Change(msgspec.structs.replace(before, rotate_at=0.0))
            if not made:
                made.append(await self.version(before.kind, before.key_size))
            after = before.rotated_on_time(now)
            return Change(after, {after.latest: made[0]})

        await self._keys.change(mount, name, decide)
        return rotated

    async def version(self, kind: KeyType, key_size: int) -> Version:
        """Returns a new version; what takes long to make is made in a thread."""
        now = self._clock.now()
        if kind.family is Family.RSA:
            return await asyncio.to_thread(new_version, kind, now, key_size)
        return new_version(kind, now, key_size)


def new_key(kind: KeyType) -> Key:
    """Returns a key without versions, with the usual settings."""
    return Key(uuid.uuid4().hex, kind.name)

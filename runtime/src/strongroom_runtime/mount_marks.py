"""What a service remembers of mounts that were disabled or moved, against requests that are still under way then.

gone/<mount>     the mount was disabled: nothing is kept of it any more
moved/<mount>    where a mount is that was moved
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from strongroom_runtime.clock import Clock
from strongroom_runtime.context import MountContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction

_GONE, _MOVED = Plain("gone"), Plain("moved")
_PAGE = 100
_LOOK_SECONDS = 3_600.0
# No request that began while a mount was enabled goes on for so long.
_FORGOTTEN_SECONDS = 86_400.0


class Moved(msgspec.Struct, frozen=True):
    """Where a mount is, and how often it was moved."""

    path: str = ""
    moves: int = 0


_decode_moved = msgspec.msgpack.Decoder(Moved).decode


def gone_path(mount: str) -> Path:
    """Returns what marks a mount as disabled. Whatever is made for a mount expects that it is absent."""
    return (_GONE, Plain(mount))


async def is_gone(store: Store, mount: str) -> bool:
    """Returns whether a mount was disabled."""
    return await store.get(gone_path(mount)) is not None


async def check_there(store: Store, mount: str) -> None:
    """Raises where a mount was disabled, which a conflict may come from.

    Raises:
        ServiceError: NOT_FOUND.
    """
    if await is_gone(store, mount):
        raise ServiceError(Kind.NOT_FOUND, "the mount was disabled")


async def mark_gone(store: Store, mount: str) -> None:
    """Marks a mount as disabled: nothing can be made for it any more."""
    if not await is_gone(store, mount):
        await store.commit(Transaction(puts={gone_path(mount): b""}, deletes=[_moved_path(mount)]))


async def mark_moved(store: Store, mount: str, after: Moved) -> bool:
    """Records where a mount is, and returns whether that is the last move known of it.

    Nothing that is given by its path can be given under another one any more.
    """
    while True:
        before, revision = await _moved(store, mount)
        if before.moves >= after.moves:
            return before == after
        value = msgspec.msgpack.encode(after)
        with contextlib.suppress(ConflictError):
            await store.commit(
                Transaction(
                    expect={_moved_path(mount): revision, gone_path(mount): 0},
                    puts={_moved_path(mount): value},
                )
            )
            return True
        if await is_gone(store, mount):
            return False


async def unmoved(store: Store, mount: MountContext) -> dict[Path, int]:
    """Returns what must hold so that the path of a request, and of what it gives, is that of its mount.

    Raises:
        ServiceError: NOT_FOUND where the mount was moved since the request came in.
    """
    known, revision = await _moved(store, mount.uuid)
    if known.path not in ("", mount.path):
        raise ServiceError(Kind.NOT_FOUND, "the mount was moved")
    return {_moved_path(mount.uuid): revision}


async def _not_needed(mount: str) -> bool:
    return False


class GoneMarks:
    """Forgets, after a day, that mounts were disabled. Every replica may.

    How long is by this process's own monotonic clock, so that no clocks have to agree.

    Args:
        store: the service's.
        clock: whose monotonic time counts.
        drop: removes what there still is of a mount.
        needed: whether something that a mount gave has not ended yet.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        drop: Callable[[str], Awaitable[None]],
        needed: Callable[[str], Awaitable[bool]] = _not_needed,
    ) -> None:
        self._store = store
        self._clock = clock
        self._drop = drop
        self._needed = needed
        self._seen: dict[str, float] = {}

    async def run(self) -> NoReturn:
        """Looks again and again, for ever."""
        work = Repeated("the forgetting of disabled mounts")
        while True:
            await asyncio.sleep(_LOOK_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
            with work.turn():
                await self.once()

    async def once(self) -> None:
        """Looks once, at all of them."""
        now, marks = self._clock.monotonic(), dict[str, float]()
        after: Path | None = None
        while page := await self._store.scan((_GONE,), after=after, limit=_PAGE):
            after = page[-1].path
            for entry in page:
                mount = str(entry.path[1])
                marks[mount] = self._seen.get(mount, now)
        self._seen = marks
        for mount, since in marks.items():
            if now - since >= _FORGOTTEN_SECONDS and not await self._needed(mount):
                await self._drop(mount)
                await self._store.commit(Transaction(deletes=[gone_path(mount)]))


def _moved_path(mount: str) -> Path:
    return (_MOVED, Plain(mount))


async def _moved(store: Store, mount: str) -> tuple[Moved, int]:
    entry = await store.get(_moved_path(mount))
    return (_decode_moved(entry.value), entry.revision) if entry is not None else (Moved(), 0)

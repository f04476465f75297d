"""Who takes keys from this seal, and whether they have done what it said last."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterator

log = logging.getLogger(__name__)


class Followers:
    """The streams that carry keys. Each confirms a change once its process has taken the keys, or forgotten them."""

    def __init__(self) -> None:
        self._change = 0
        self._confirmed: dict[tuple[str, str], int] = {}  # by service and stream
        self._moved = asyncio.Event()

    @property
    def change(self) -> int:
        """How often the keys have changed."""
        return self._change

    def changed(self) -> None:
        """Notes that the keys came, went, or are others."""
        self._change += 1

    @contextlib.contextmanager
    def following(self, service: str) -> Iterator[str]:
        """Gives the name of a stream of a service, whose confirmations are waited for until it ends."""
        stream_id = str(uuid.uuid4())
        self._confirmed[service, stream_id] = 0
        try:
            yield stream_id
        finally:
            del self._confirmed[service, stream_id]
            self._moved.set()

    def confirm(self, service: str, stream_id: str, change: int) -> None:
        """Takes a confirmation; that of a stream which has ended is of no more use."""
        if change > self._confirmed.get((service, stream_id), change):
            self._confirmed[service, stream_id] = change
            self._moved.set()

    async def settled(self, seconds: float) -> None:
        """Returns once all have done what was said until now; without those that take too long."""
        change = self._change
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._behind(change):
                    self._moved.clear()
                    await self._moved.wait()
        if behind := self._behind(change):
            log.warning(
                "some services have not said that they know of the seal's change",
                extra={"services": sorted(set(behind))},
            )

    def _behind(self, change: int) -> list[str]:
        return [service for (service, _), known in self._confirmed.items() if known < change]

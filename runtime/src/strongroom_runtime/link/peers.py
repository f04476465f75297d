"""Confirmations between processes: both ends of `PeerService`.

A writer waits for them before it answers; see `docs/decisions/0002-acknowledged-writes.md`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from strongroom.link.v1 import peer_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.link.client import RemoteCaller, response_classes
from strongroom_runtime.transport.credentials import Connector

DESCRIPTOR = peer_pb2.DESCRIPTOR.services_by_name["PeerService"]
_CONFIRM = f"/{DESCRIPTOR.full_name}/ConfirmApplied"
_METHODS = response_classes(DESCRIPTOR)
_SECONDS = 5.0


class PeerHandlers:
    """Answers other processes.

    Args:
        applied: returns when a prefix has been applied up to a revision.
    """

    def __init__(self, applied: Callable[[str, int], Awaitable[None]]) -> None:
        self._applied = applied

    async def ConfirmApplied(  # noqa: N802 (the contract's name)
        self, request: peer_pb2.ConfirmAppliedRequest, context: RequestContext
    ) -> peer_pb2.ConfirmAppliedResponse:
        """Returns once the revision is applied here."""
        await self._applied(request.prefix, request.revision)
        return peer_pb2.ConfirmAppliedResponse()

    def register(self, table: HandlerTable) -> None:
        """Adds the service to a handler table."""
        table.add(DESCRIPTOR, self)


class PeerClient:
    """Asks other processes, over a link to each address that is made at first use and ended when it is not used.

    Args:
        connect: opens channels, and connections beside them.
        idle_seconds: after which a link is ended: the process may be gone for good.
    """

    def __init__(self, connect: Connector, idle_seconds: float = 60.0) -> None:
        self._connect = connect
        self._idle_seconds = idle_seconds
        self._links: dict[str, RemoteCaller] = {}
        self._used: dict[str, float] = {}
        # Confirmations, by the address that is asked for them.
        self._waiting: Counter[str] = Counter()
        self._sweeper: asyncio.Task[None] | None = None

    async def confirm(
        self, address: str, prefix: str, revision: int, timeout_seconds: float = _SECONDS
    ) -> None:
        """Returns once the process at an address has applied a revision below a prefix.

        Raises:
            ServiceError: UNAVAILABLE where it cannot be reached or does not answer in time. The write
                must then wait until that process's member lease has run out.
        """
        now = time.monotonic()
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._end_idle(), name="idle-peers")
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = RemoteCaller(
                self._connect, [address], _METHODS, wait_seconds=timeout_seconds, as_member=True
            )
        request = peer_pb2.ConfirmAppliedRequest(prefix=prefix, revision=revision)
        context = RequestContext("", deadline=now + timeout_seconds)
        self._waiting[address] += 1
        try:
            await link.call(_CONFIRM, request, context)
        except ServiceError as error:
            raise ServiceError(Kind.UNAVAILABLE, "a peer did not confirm") from error
        finally:
            self._waiting[address] -= 1
            self._used[address] = time.monotonic()

    async def close(self) -> None:
        """Ends every link."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for link in self._links.values():
            await link.close()
        self._links.clear()

    async def _end_idle(self) -> None:
        while self._links:
            await asyncio.sleep(self._idle_seconds / 2)
            now = time.monotonic()
            for address, used in list(self._used.items()):
                if not self._waiting[address] and now - used > self._idle_seconds:
                    del self._used[address], self._waiting[address]
                    await self._links.pop(address).close()

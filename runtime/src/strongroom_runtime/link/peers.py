"""Confirmations between processes: both ends of `PeerService`.

A writer waits for them before it answers; see `docs/decisions/0002-acknowledged-writes.md`.
"""

from collections.abc import Awaitable, Callable

import grpc

from strongroom.link.v1 import peer_pb2, peer_pb2_grpc
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import HandlerTable

DESCRIPTOR = peer_pb2.DESCRIPTOR.services_by_name["PeerService"]


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
    """Asks other processes; one channel for each address, opened at first use.

    Args:
        connect: opens a channel with mutual TLS to host:port.
    """

    def __init__(self, connect: Callable[[str], grpc.aio.Channel]) -> None:
        self._connect = connect
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def confirm(
        self, address: str, prefix: str, revision: int, timeout_seconds: float | None = None
    ) -> None:
        """Returns once the process at an address has applied a revision below a prefix.

        Raises:
            ServiceError: UNAVAILABLE where it cannot be reached or does not answer in time. The write
                must then wait until that process's member lease has run out.
        """
        if address not in self._channels:
            self._channels[address] = self._connect(address)
        stub = peer_pb2_grpc.PeerServiceStub(self._channels[address])
        request = peer_pb2.ConfirmAppliedRequest(prefix=prefix, revision=revision)
        try:
            await stub.ConfirmApplied(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise ServiceError(Kind.UNAVAILABLE, "a peer did not confirm") from error

    async def forget(self, address: str) -> None:
        """Closes the channel to a process that is gone."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Closes every channel."""
        for address in list(self._channels):
            await self.forget(address)

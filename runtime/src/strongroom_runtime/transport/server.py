"""The internal gRPC server of a process: the link and the handlers, health, reflection, over mutual TLS."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from strongroom.link.v1 import link_pb2
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.link import LinkServer
from strongroom_runtime.link.direct import DirectListener
from strongroom_runtime.telemetry import Telemetry
from strongroom_runtime.transport.credentials import SERVER_OPTIONS, Identities
from strongroom_runtime.transport.leaving import Patience

_CLOSE_SECONDS = 0.5


class InternalServer:
    """Serves one handler table to the services that its contract names.

    Args:
        table: what is served.
        identities: the certificates of this process; callers outside their trust domain are refused.
        drain_seconds: how long `drain` waits for calls under way.
        telemetry: of the service.
        patience: with streams both ways that are open in the end.
        takes: whether streams, and so calls of the link, are taken now; None for always.
    """

    def __init__(
        self,
        table: HandlerTable,
        identities: Identities,
        drain_seconds: float = 10.0,
        telemetry: Telemetry | None = None,
        patience: Patience | None = None,
        takes: Callable[[], bool] | None = None,
    ) -> None:
        self._identities = identities
        self._drain_seconds = drain_seconds
        self._patience = patience or Patience()
        self._drained = False
        self._direct = DirectListener(identities.server_context())
        self._link = LinkServer(
            table,
            identities.trust_domain,
            telemetry=telemetry,
            direct=self._direct,
            takes=takes,
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers([self._link])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(_service_names(table), self._server)

    async def start(self, address: str, direct: str = "", direct_reached: str = "") -> int:
        """Listens on host:port (0 for any free port), reports healthy, and returns the port.

        Args:
            address: for gRPC.
            direct: host:port for connections beside streams; empty for any free port of the same host.
            direct_reached: where callers find it; see `DirectListener.start`.

        Raises:
            OSError: an address is in use or not of this machine.
        """
        try:
            port = self._server.add_secure_port(address, self._identities.server_credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        direct = direct or f"{address.rpartition(':')[0]}:0"
        try:
            await self._direct.start(direct, direct_reached)
        except OSError as error:
            raise OSError(f"cannot listen on {direct}") from error
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self) -> None:
        """Sends callers elsewhere and returns once what is under way was answered, or has taken too long.

        Streams both ways, which may hold half a file, go on for as long as there is patience.
        """
        if self._drained:
            return
        self._drained = True
        await self._health.enter_graceful_shutdown()
        self._link.drain()
        self._link.watches.end()  # they last; whoever watches finds another replica
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                await self._link.idle()
        await self._patience.wait_for(self._link.duplexes)

    async def stop(self) -> None:
        """Drains, ends the watches that are left, and closes."""
        await self.drain()
        await self._server.stop(_CLOSE_SECONDS)
        self._direct.stop()


def _service_names(table: HandlerTable) -> Iterable[str]:
    names = {name.split("/")[1] for name in table.methods}
    link = link_pb2.DESCRIPTOR.services_by_name["LinkService"].full_name
    return [*sorted(names), link, health.SERVICE_NAME, reflection.SERVICE_NAME]

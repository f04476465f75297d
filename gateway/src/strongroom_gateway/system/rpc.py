"""SystemService: health, tools, the description of the API."""

import socket
from collections.abc import Awaitable, Callable

from strongroom.seal.v1 import seal_pb2
from strongroom.sys.v1 import system_pb2 as pb
from strongroom_runtime import tools
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.handlers import Caller

_SEAL_STATUS = "/strongroom.seal.v1.SealService/ReadSealStatus"


class SystemHandlers:
    """Answers requests that need no other service, but for the state of the seal."""

    def __init__(
        self,
        seal: Caller,
        clock: Clock,
        address: str,
        open_api: Callable[[bool, RequestContext], Awaitable[bytes]],
        help_on: Callable[[str], Awaitable[str]],
    ) -> None:
        self._help_on = help_on
        self._seal = seal
        self._clock = clock
        self._address = address
        self._open_api = open_api

    async def ReadHealth(
        self, request: pb.ReadHealthRequest, context: RequestContext
    ) -> pb.ReadHealthResponse:
        _check_codes(request)
        status = await self._seal_status(context)
        mode = "unknown" if status.sealed else "disabled"
        response = pb.ReadHealthResponse(
            initialized=status.initialized,
            sealed=status.sealed,
            standby=status.sealed,  # as in Vault: whoever is sealed serves nobody
            replication_performance_mode=mode,
            replication_dr_mode=mode,
            server_time_utc=int(self._clock.now()),
            version=status.version,
        )
        if not status.sealed:
            response.cluster_name = status.cluster_name
            response.cluster_id = status.cluster_id
        return response

    async def ReadHelp(
        self, request: pb.ReadHelpRequest, context: RequestContext
    ) -> pb.ReadHelpResponse:
        text = await self._help_on(request.path.strip("/"))
        if not text:
            raise not_found()
        return pb.ReadHelpResponse(help=text)

    async def ReadLeader(
        self, request: pb.ReadLeaderRequest, context: RequestContext
    ) -> pb.ReadLeaderResponse:
        return pb.ReadLeaderResponse()

    async def StepDown(
        self, request: pb.StepDownRequest, context: RequestContext
    ) -> pb.StepDownResponse:
        return pb.StepDownResponse()

    async def ListUiNamespaces(
        self, request: pb.ListUiNamespacesRequest, context: RequestContext
    ) -> pb.ListUiNamespacesResponse:
        return pb.ListUiNamespacesResponse()

    async def Random(self, request: pb.RandomRequest, context: RequestContext) -> pb.RandomResponse:
        text = tools.random_text(request.bytes, request.source, request.format)
        return pb.RandomResponse(random_bytes=text)

    async def Hash(self, request: pb.HashRequest, context: RequestContext) -> pb.HashResponse:
        if not request.HasField("input"):
            raise invalid("input: is missing")
        text = tools.hash_text(request.input, request.algorithm, request.format)
        return pb.HashResponse(sum=text)

    async def ReadHaStatus(
        self, request: pb.ReadHaStatusRequest, context: RequestContext
    ) -> pb.ReadHaStatusResponse:
        node = pb.Node(
            hostname=socket.gethostname(),
            api_address=self._address,
            active_node=True,
            version=(await self._seal_status(context)).version,
        )
        return pb.ReadHaStatusResponse(nodes=[node])

    async def ReadOpenApi(
        self, request: pb.ReadOpenApiRequest, context: RequestContext
    ) -> pb.ReadOpenApiResponse:
        document = await self._open_api(request.generic_mount_paths, context)
        return pb.ReadOpenApiResponse(document=document)

    async def _seal_status(self, context: RequestContext) -> seal_pb2.SealStatus:
        answer = await self._seal.call(
            _SEAL_STATUS, seal_pb2.ReadSealStatusRequest(), RequestContext(context.request_id)
        )
        status: seal_pb2.SealStatus = answer.status
        return status


def _check_codes(request: pb.ReadHealthRequest) -> None:
    """Raises for what is no HTTP status of an answer: the HTTP server ends its process over some.

    Raises:
        ServiceError: INVALID.
    """
    for name in ("activecode", "standbycode", "sealedcode", "uninitcode"):
        code = getattr(request, name)
        if code and not 200 <= code <= 599:
            raise invalid(f"{name}: takes an HTTP status from 200 to 599")

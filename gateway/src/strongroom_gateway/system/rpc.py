"""SystemService: health, tools, the description of the API."""

import base64
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable

from strongroom.seal.v1 import seal_pb2
from strongroom.sys.v1 import system_pb2 as pb
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.handlers import Caller

_MAX_RANDOM = 131_072
_SEAL_STATUS = "/strongroom.seal.v1.SealService/ReadSealStatus"


class SystemHandlers:
    """Answers requests that need no other service, but for the state of the seal."""

    def __init__(
        self,
        seal: Caller,
        clock: Clock,
        address: str,
        open_api: Callable[[], bytes],
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
        answer = await self._seal.call(
            _SEAL_STATUS, seal_pb2.ReadSealStatusRequest(), RequestContext(context.request_id)
        )
        status: seal_pb2.SealStatus = answer.status
        response = pb.ReadHealthResponse(
            initialized=status.initialized,
            sealed=status.sealed,
            replication_performance_mode="disabled",
            replication_dr_mode="disabled",
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

    async def Random(self, request: pb.RandomRequest, context: RequestContext) -> pb.RandomResponse:
        text = request.bytes or "32"
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MAX_RANDOM:
            raise invalid(f"bytes: takes a number from 1 to {_MAX_RANDOM}")
        data = os.urandom(int(text))
        return pb.RandomResponse(random_bytes=_shown(data, request.format or "base64"))

    async def Hash(self, request: pb.HashRequest, context: RequestContext) -> pb.HashResponse:
        algorithm = request.algorithm or "sha2-256"
        name = algorithm.replace("sha2-", "sha").replace("sha3-", "sha3_")
        if algorithm not in _ALGORITHMS:
            raise invalid(f"algorithm: takes one of {', '.join(_ALGORITHMS)}")
        digest = hashlib.new(name, request.input).digest()
        return pb.HashResponse(sum=_shown(digest, request.format or "hex"))

    async def ReadHaStatus(
        self, request: pb.ReadHaStatusRequest, context: RequestContext
    ) -> pb.ReadHaStatusResponse:
        node = pb.Node(hostname=socket.gethostname(), api_address=self._address, active_node=True)
        return pb.ReadHaStatusResponse(nodes=[node])

    async def ReadOpenApi(
        self, request: pb.ReadOpenApiRequest, context: RequestContext
    ) -> pb.ReadOpenApiResponse:
        return pb.ReadOpenApiResponse(document=self._open_api())


_ALGORITHMS = tuple(f"sha{family}-{size}" for family in (2, 3) for size in (224, 256, 384, 512))


def _shown(data: bytes, form: str) -> str:
    if form == "hex":
        return data.hex()
    if form == "base64":
        return base64.b64encode(data).decode()
    raise invalid("format: takes base64 or hex")

"""gRPC's own health service for clients, load balancers and probes: grpc.health.v1.

It needs no token and is not audited, as `sys/health` over HTTP. `Watch` is not offered, which that contract provides
for: a stream for anybody who asks would cost something for as long as they like.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from strongroom_gateway.contract.routes import MethodSpec

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_Status = health_pb2.HealthCheckResponse


class GrpcHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # which has no types
    """Tells whether the whole takes requests (the empty name), or one service of the contracts by its full name.

    Args:
        methods: all public ones.
        reached: whether a service of the platform, by the name of its area such as `kv`, takes calls from here.
    """

    def __init__(self, methods: Iterable[MethodSpec], reached: Callable[[str], bool]) -> None:
        self._areas = {spec.name.split("/")[1]: spec.area for spec in methods}
        self._reached = reached

    async def Check(  # noqa: N802 (the name in the contract)
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Answers NOT_FOUND for a name that is none of the contracts."""
        if not request.service:
            asked = set(self._areas.values())
        elif request.service in self._areas:
            asked = {self._areas[request.service]}
        else:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service: no service has this name")
        serving = all(map(self._reached, asked))
        return _Status(status=_Status.SERVING if serving else _Status.NOT_SERVING)

    async def Watch(  # noqa: N802 (the name in the contract)
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answers UNIMPLEMENTED."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask with Check")
        yield _Status()  # so that it is a stream

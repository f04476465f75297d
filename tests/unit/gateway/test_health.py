"""gRPC's health service, as the gateway offers it."""

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from strongroom_gateway.contract.public import public_services
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.health import GrpcHealth

Status = health_pb2.HealthCheckResponse


class Reached:
    """Services of which some are away."""

    def __init__(self) -> None:
        self.away: set[str] = set()

    def __call__(self, name: str) -> bool:
        return name not in self.away


@pytest.fixture
def reached() -> Reached:
    return Reached()


@pytest.fixture
async def health(reached: Reached) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    server = grpc.aio.server()
    methods = RouteTable(public_services()).methods.values()
    health_pb2_grpc.add_HealthServicer_to_server(GrpcHealth(methods, reached), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)
    await server.stop(0)


async def status(health: health_pb2_grpc.HealthStub, name: str) -> int:
    answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


async def test_the_whole_serves_while_every_service_does(
    health: health_pb2_grpc.HealthStub, reached: Reached
) -> None:
    assert await status(health, "") == Status.SERVING
    for name in ("seal", "audit", "kv", "transit", "dbcreds", "auth", "sys"):
        reached.away = {name}
        assert await status(health, "") == Status.NOT_SERVING, name


async def test_one_service_does_not_depend_on_another(
    health: health_pb2_grpc.HealthStub, reached: Reached
) -> None:
    reached.away = {"kv"}
    assert await status(health, "strongroom.kv.v1.KvV2Service") == Status.NOT_SERVING
    assert await status(health, "strongroom.auth.v1.TokenService") == Status.SERVING


async def test_unknown_names_and_watches_are_refused(health: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await status(health, "strongroom.kv.v1.Nothing")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as watch:
        await health.Watch(health_pb2.HealthCheckRequest()).read()
    assert watch.value.code() is grpc.StatusCode.UNIMPLEMENTED

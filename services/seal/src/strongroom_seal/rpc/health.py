"""HealthService: what load balancers and clients ask before anything else."""

from strongroom.seal.v1 import health_pb2 as pb
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_seal.config import Config
from strongroom_seal.seal import Seal


class HealthHandlers:
    """Answers clients."""

    def __init__(self, seal: Seal, config: Config, clock: Clock) -> None:
        self._seal = seal
        self._config = config
        self._clock = clock

    async def ReadHealth(
        self, request: pb.ReadHealthRequest, context: RequestContext
    ) -> pb.ReadHealthResponse:
        config = await self._seal.config()
        response = pb.ReadHealthResponse(
            initialized=config is not None,
            sealed=self._seal.sealed,
            replication_performance_mode="disabled",
            replication_dr_mode="disabled",
            server_time_utc=int(self._clock.now()),
            version=self._config.version,
        )
        if config is not None and not self._seal.sealed:
            response.cluster_name, response.cluster_id = config.cluster_name, config.cluster_id
        return response

    async def ReadLeader(
        self, request: pb.ReadLeaderRequest, context: RequestContext
    ) -> pb.ReadLeaderResponse:
        if self._seal.sealed:
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        return pb.ReadLeaderResponse()

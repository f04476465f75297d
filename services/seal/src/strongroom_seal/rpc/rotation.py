"""RotationPolicyService: when new terms begin by themselves."""

from strongroom.seal.v1 import rotation_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_seal.rotation import Rotation
from strongroom_seal.seal import Seal


class RotationPolicyHandlers:
    """Answers clients."""

    def __init__(self, seal: Seal, rotation: Rotation) -> None:
        self._seal = seal
        self._rotation = rotation

    async def ReadRotationPolicy(
        self, request: pb.ReadRotationPolicyRequest, context: RequestContext
    ) -> pb.ReadRotationPolicyResponse:
        policy = self._seal.ring.policy
        return pb.ReadRotationPolicyResponse(
            enabled=policy.enabled, max_operations=policy.max_operations, interval=policy.interval
        )

    async def WriteRotationPolicy(
        self, request: pb.WriteRotationPolicyRequest, context: RequestContext
    ) -> pb.WriteRotationPolicyResponse:
        await self._rotation.set_policy(
            request.max_operations if request.HasField("max_operations") else None,
            request.interval if request.HasField("interval") else None,
            request.enabled if request.HasField("enabled") else None,
        )
        return pb.WriteRotationPolicyResponse()

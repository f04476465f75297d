"""LeaseQuotaService: bounds on the number of leases."""

from strongroom.dbcreds.v1 import quota_pb2 as pb
from strongroom_dbcreds.leases.quotas import Quotas
from strongroom_dbcreds.records import Quota
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import not_found
from strongroom_runtime.requests import check_length

_MOST_CHARACTERS = 512  # of a path or a role


class LeaseQuotaHandlers:
    """Answers requests to sys/quotas/lease-count."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    async def ListLeaseQuotas(
        self, request: pb.ListLeaseQuotasRequest, context: RequestContext
    ) -> pb.ListLeaseQuotasResponse:
        names = await self._quotas.names()
        if not names:
            raise not_found()
        return pb.ListLeaseQuotasResponse(keys=names)

    async def ReadLeaseQuota(
        self, request: pb.ReadLeaseQuotaRequest, context: RequestContext
    ) -> pb.ReadLeaseQuotaResponse:
        quota = await self._quotas.get(request.name)
        if quota is None:
            raise not_found()
        return pb.ReadLeaseQuotaResponse(
            name=request.name,
            type="lease-count",
            path=quota.path,
            role=quota.role,
            max_leases=quota.most,
            counter=await self._quotas.counted(quota),
        )

    async def WriteLeaseQuota(
        self, request: pb.WriteLeaseQuotaRequest, context: RequestContext
    ) -> pb.WriteLeaseQuotaResponse:
        for name in ("path", "role"):
            check_length(name, getattr(request, name), _MOST_CHARACTERS)
        path = request.path.strip("/")
        quota = Quota(path + "/" if path else "", request.role, request.max_leases)
        await self._quotas.write(request.name, quota)
        return pb.WriteLeaseQuotaResponse()

    async def DeleteLeaseQuota(
        self, request: pb.DeleteLeaseQuotaRequest, context: RequestContext
    ) -> pb.DeleteLeaseQuotaResponse:
        await self._quotas.delete(request.name)
        return pb.DeleteLeaseQuotaResponse()

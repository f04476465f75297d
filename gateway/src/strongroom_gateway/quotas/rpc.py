"""QuotaService: the contract to and from quotas."""

import msgspec

from strongroom.sys.v1 import quotas_pb2 as pb
from strongroom_gateway.mounts.table import ACTIVE, MountTable, Snapshot
from strongroom_gateway.quotas.limits import RateLimit
from strongroom_gateway.settings.store import Settings, SettingsStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.requests import check_length, check_texts

MAX_QUOTAS = 1_000
_MAX_SECONDS = 86_400 * 365
_MAX_CHARACTERS = 512  # of a name, a path or a role: all settings are one record


class QuotaHandlers:
    """Answers requests to sys/quotas."""

    def __init__(self, settings: SettingsStore, mounts: MountTable) -> None:
        self._settings = settings
        self._mounts = mounts

    async def ReadQuotaConfig(
        self, request: pb.ReadQuotaConfigRequest, context: RequestContext
    ) -> pb.ReadQuotaConfigResponse:
        config = (await self._settings.current()).quotas
        return pb.ReadQuotaConfigResponse(
            rate_limit_exempt_paths=config.exempt,
            enable_rate_limit_audit_logging=config.audit_refused,
            enable_rate_limit_response_headers=config.headers,
        )

    async def WriteQuotaConfig(
        self, request: pb.WriteQuotaConfigRequest, context: RequestContext
    ) -> pb.WriteQuotaConfigResponse:
        changes: dict[str, object] = {}
        if request.HasField("rate_limit_exempt_paths"):
            paths = request.rate_limit_exempt_paths.values
            check_texts("rate_limit_exempt_paths", paths, MAX_QUOTAS, _MAX_CHARACTERS)
            changes["exempt"] = tuple(path.strip("/") for path in paths)
        if request.HasField("enable_rate_limit_audit_logging"):
            changes["audit_refused"] = request.enable_rate_limit_audit_logging
        if request.HasField("enable_rate_limit_response_headers"):
            changes["headers"] = request.enable_rate_limit_response_headers

        def change(settings: Settings) -> Settings:
            quotas = msgspec.structs.replace(settings.quotas, **changes)
            return msgspec.structs.replace(settings, quotas=quotas)

        await self._settings.change(change)
        return pb.WriteQuotaConfigResponse()

    async def ListRateLimits(
        self, request: pb.ListRateLimitsRequest, context: RequestContext
    ) -> pb.ListRateLimitsResponse:
        names = sorted((await self._settings.current()).rate_limits)
        if not names:
            raise not_found()
        return pb.ListRateLimitsResponse(keys=names)

    async def ReadRateLimit(
        self, request: pb.ReadRateLimitRequest, context: RequestContext
    ) -> pb.ReadRateLimitResponse:
        limit = (await self._settings.current()).rate_limits.get(request.name)
        if limit is None:
            raise not_found()
        return pb.ReadRateLimitResponse(
            name=request.name,
            type="rate-limit",
            path=_path(limit, await self._mounts.current()),
            rate=limit.rate,
            interval=limit.interval,
            block_interval=limit.block,
            role=limit.role,
            inheritable=limit.inheritable,
        )

    async def WriteRateLimit(
        self, request: pb.WriteRateLimitRequest, context: RequestContext
    ) -> pb.WriteRateLimitResponse:
        for name in ("name", "path", "role"):
            check_length(name, getattr(request, name), _MAX_CHARACTERS)
        limit = _limit(request, await self._mounts.current())

        def change(settings: Settings) -> Settings:
            for name, known in settings.rate_limits.items():
                if name != request.name and known.same_target(limit):
                    raise invalid("path: another quota is for the same requests")
            limits = {**settings.rate_limits, request.name: limit}
            if len(limits) > MAX_QUOTAS:
                raise invalid(f"there may be at most {MAX_QUOTAS} quotas")
            return msgspec.structs.replace(settings, rate_limits=limits)

        await self._settings.change(change)
        return pb.WriteRateLimitResponse()

    async def DeleteRateLimit(
        self, request: pb.DeleteRateLimitRequest, context: RequestContext
    ) -> pb.DeleteRateLimitResponse:
        def change(settings: Settings) -> Settings:
            limits = {n: q for n, q in settings.rate_limits.items() if n != request.name}
            return msgspec.structs.replace(settings, rate_limits=limits)

        await self._settings.change(change)
        return pb.DeleteRateLimitResponse()


def _limit(request: pb.WriteRateLimitRequest, mounts: Snapshot) -> RateLimit:
    """Returns the quota that a message describes.

    Raises:
        ServiceError: INVALID.
    """
    if request.type not in ("", "rate-limit"):
        raise invalid("type: there are quotas of the type rate-limit only")
    if not 0 < request.rate <= 1e12:
        raise invalid("rate: takes a number of more than 0")
    for name in ("interval", "block_interval"):
        if not 0 <= getattr(request, name) <= _MAX_SECONDS:
            raise invalid(f"{name}: takes 0 to {_MAX_SECONDS} seconds")
    mount, suffix = "", ""
    path = request.path.strip().lstrip("/")
    auth = False
    if path:
        found = mounts.find(path if path.endswith("/") else path + "/")
        if found is None or found[0].state != ACTIVE:
            raise invalid("path: lies in no mount")
        mount, suffix, auth = found[0].uuid, path[len(found[0].path) :], found[0].auth
        if not suffix:
            path = found[0].path
    if request.role and (not auth or suffix):
        raise invalid("role: the path must be a login mount, without anything behind it")
    return RateLimit(
        path=path,
        mount=mount,
        suffix=suffix,
        rate=request.rate,
        interval=request.interval or 1,
        block=request.block_interval,
        role=request.role.strip().lower(),
        inheritable=request.inheritable,
    )


def _path(limit: RateLimit, mounts: Snapshot) -> str:
    """Returns what a quota is for by the mount's path of today."""
    for mount in mounts.mounts.values():
        if limit.mount and mount.uuid == limit.mount:
            return mount.path + limit.suffix
    return limit.path

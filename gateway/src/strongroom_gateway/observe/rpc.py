"""ObserveService: what operators look at, as messages."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import msgspec

from strongroom.sys.v1 import observe_pb2 as pb
from strongroom_gateway.mounts.table import REMOVING, Mount, MountTable
from strongroom_gateway.observe import loggers
from strongroom_gateway.observe.monitor import lines
from strongroom_gateway.observe.observer import Observer
from strongroom_gateway.observe.shown_metrics import as_json, as_prometheus
from strongroom_gateway.observe.versions import VersionHistory
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.timestamps import timestamp

_TAGS = ("root", "uuid", "accessor", "storage")


class ObserveHandlers:
    """Answers requests to sys/metrics, sys/host-info, sys/in-flight-req, sys/loggers and the like."""

    def __init__(
        self, metrics: Metrics, observer: Observer, versions: VersionHistory, mounts: MountTable
    ) -> None:
        self._metrics = metrics
        self._observer = observer
        self._versions = versions
        self._mounts = mounts

    async def ReadMetrics(
        self, request: pb.ReadMetricsRequest, context: RequestContext
    ) -> pb.ReadMetricsResponse:
        if request.format not in ("", "prometheus"):
            raise invalid("format: takes prometheus, or nothing for JSON")
        write = as_prometheus if request.format else as_json
        kind, document = write(self._metrics.registry)
        return pb.ReadMetricsResponse(content_type=kind, document=document)

    async def Monitor(
        self, request: pb.MonitorRequest, context: RequestContext
    ) -> AsyncIterator[pb.MonitorResponse]:
        async with contextlib.aclosing(lines(request.log_level, request.log_format)) as shown:
            async for line in shown:
                yield pb.MonitorResponse(content_type="text/plain", document=line.encode())

    async def ReadHostInfo(
        self, request: pb.ReadHostInfoRequest, context: RequestContext
    ) -> pb.ReadHostInfoResponse:
        # Seldom asked for, and what it needs takes a twentieth of a gateway's start to load.
        from strongroom_gateway.observe.host import host_info

        info = await asyncio.to_thread(host_info)
        return pb.ReadHostInfoResponse(document=msgspec.json.encode(info))

    async def ReadInFlightRequests(
        self, request: pb.ReadInFlightRequestsRequest, context: RequestContext
    ) -> pb.ReadInFlightRequestsResponse:
        requests = {
            call.request_id: pb.InFlightRequest(
                start_time=timestamp(since),
                client_remote_address=call.client_address,
                request_path=f"/v1/{call.path}",
                request_method=call.method,
            )
            for since, call in self._observer.under_way()
        }
        return pb.ReadInFlightRequestsResponse(requests=requests)

    async def ListVersions(
        self, request: pb.ListVersionsRequest, context: RequestContext
    ) -> pb.ListVersionsResponse:
        known = await self._versions.all()
        response = pb.ListVersionsResponse(keys=[each.version for each in known])
        before: str | None = None
        for each in known:
            response.key_info[each.version].CopyFrom(
                pb.InstalledVersion(
                    previous_version=before, timestamp_installed=timestamp(each.since)
                )
            )
            before = each.version
        return response

    async def ReadLoggers(
        self, request: pb.ReadLoggersRequest, context: RequestContext
    ) -> pb.ReadLoggersResponse:
        return pb.ReadLoggersResponse(
            levels={name: loggers.level(name) for name in loggers.names()}
        )

    async def ReadLogger(
        self, request: pb.ReadLoggerRequest, context: RequestContext
    ) -> pb.ReadLoggerResponse:
        known: Mapping[str, str] = (
            {request.name: loggers.level(request.name)} if request.name in loggers.names() else {}
        )
        if not known:
            raise not_found()
        return pb.ReadLoggerResponse(levels=known)

    async def WriteLoggers(
        self, request: pb.WriteLoggersRequest, context: RequestContext
    ) -> pb.WriteLoggersResponse:
        loggers.parse(request.level)
        loggers.set_all(request.level)
        return pb.WriteLoggersResponse()

    async def WriteLogger(
        self, request: pb.WriteLoggerRequest, context: RequestContext
    ) -> pb.WriteLoggerResponse:
        loggers.parse(request.level)
        loggers.set_level(request.name, request.level)
        return pb.WriteLoggerResponse()

    async def ResetLoggers(
        self, request: pb.ResetLoggersRequest, context: RequestContext
    ) -> pb.ResetLoggersResponse:
        loggers.set_all("")
        return pb.ResetLoggersResponse()

    async def ResetLogger(
        self, request: pb.ResetLoggerRequest, context: RequestContext
    ) -> pb.ResetLoggerResponse:
        loggers.set_level(request.name, "")
        return pb.ResetLoggerResponse()

    async def InspectRouter(
        self, request: pb.InspectRouterRequest, context: RequestContext
    ) -> pb.InspectRouterResponse:
        if request.tag not in _TAGS:
            raise not_found("unsupported path")
        mounts = [_routed(mount, request.tag) for mount in await self._all_mounts()]
        return pb.InspectRouterResponse(document=msgspec.json.encode({request.tag: mounts}))

    async def InspectRequest(
        self, request: pb.InspectRequestRequest, context: RequestContext
    ) -> pb.InspectRequestResponse:
        token, mount = context.token, context.mount
        shown = {
            "id": context.request_id,
            "operation": "read",
            "path": context.path,
            "mount_point": mount.path if mount is not None else "",
            "mount_type": mount.type if mount is not None else "",
            "mount_accessor": mount.accessor if mount is not None else "",
            "connection": {"remote_addr": context.client_address},
            "traceparent": context.traceparent,
            "display_name": token.display_name if token is not None else "",
            "policies": list(token.policies) if token is not None else [],
            "entity_id": token.entity_id if token is not None else "",
            "client_token_accessor": token.accessor if token is not None else "",
        }
        return pb.InspectRequestResponse(document=msgspec.json.encode({"req": shown}))

    async def _all_mounts(self) -> list[Mount]:
        return list((await self._mounts.current()).mounts.values())


def _routed(mount: Mount, tag: str) -> dict[str, object]:
    shown: dict[str, object] = {
        "accessor": mount.accessor,
        "mount_namespace": "",
        "mount_path": mount.path,
        "mount_type": mount.type,
        "uuid": mount.uuid,
    }
    if tag in ("root", "storage"):
        # What services keep is keyed by the mount's identity, whatever its path becomes.
        shown |= {"storage_prefix": mount.uuid, "tainted": mount.state == REMOVING}
    return shown

"""Builds the gateway."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from strongroom.sys.v1 import (
    config_pb2,
    locked_users_pb2,
    mounts_pb2,
    observe_pb2,
    plugins_pb2,
    quotas_pb2,
    system_pb2,
    wrapping_pb2,
)
from strongroom_gateway.admission import Admission
from strongroom_gateway.audit.grouped import Append, GroupedAppends
from strongroom_gateway.audit.sink import AuditSink
from strongroom_gateway.contract.help import mount_help, path_help
from strongroom_gateway.contract.public import public_services
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.grpc_wire import GrpcWire
from strongroom_gateway.http.paths import ABSOLUTE
from strongroom_gateway.http.wire import HttpWire
from strongroom_gateway.judged_paths import WithJudgedPaths
from strongroom_gateway.mounts.plugins_rpc import PluginHandlers
from strongroom_gateway.mounts.rpc import MountHandlers
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.observe.observer import Observer
from strongroom_gateway.observe.rpc import ObserveHandlers
from strongroom_gateway.observe.versions import VersionHistory
from strongroom_gateway.pipeline import Pipeline
from strongroom_gateway.quotas.rpc import QuotaHandlers
from strongroom_gateway.renewals import WithBoundsOfMounts
from strongroom_gateway.settings.rpc import ConfigHandlers
from strongroom_gateway.settings.rules import Rules
from strongroom_gateway.settings.store import SettingsStore
from strongroom_gateway.streams import Streams
from strongroom_gateway.system.locked_rpc import LockedUserHandlers
from strongroom_gateway.system.rpc import SystemHandlers
from strongroom_gateway.tokens import TokenGate
from strongroom_gateway.wrapping.beside_tokens import WithWrappingTokens
from strongroom_gateway.wrapping.older_unwrap import OlderUnwrap
from strongroom_gateway.wrapping.rpc import WrappingHandlers
from strongroom_gateway.wrapping.storage import WrapStore
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.prefix import PrefixView
from strongroom_runtime.handlers import HandlerTable, LocalCaller, StreamCaller
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.policy import Acl
from strongroom_runtime.service import BackgroundTasks
from strongroom_runtime.shared_clock import SharedClock
from strongroom_runtime.storage import Store
from strongroom_runtime.telemetry import Telemetry
from strongroom_runtime.version import version

# How long to wait, at the start, for another gateway to say what time it is.
_CLOCK_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class GatewayHost:
    """Everything the gateway is built from.

    Args:
        store: the gateway's own.
        services: auth, kv, dbcreds, audit and seal.
        views: of the prefixes auth/ and audit/, to know when what they told changes.
        sealed: whether the gateway has keys.
        address: where clients reach it.
        clock: by which tokens end.
        telemetry: of the gateway.
        metrics: of the process.
        state: the configuration of the process, without anything secret.
        append: appends audit entries where the log is in this process, and nobody wants spans of it. Otherwise the
            audit service is called.
    """

    store: Store
    services: Mapping[str, StreamCaller]
    views: Mapping[str, PrefixView]
    sealed: Callable[[], bool]
    address: str = ""
    clock: Clock = field(default_factory=SystemClock)
    telemetry: Telemetry = field(default_factory=lambda: Telemetry("gateway"))
    metrics: Metrics = field(default_factory=Metrics)
    state: Mapping[str, object] = field(default_factory=dict)
    append: Append | None = None


class Gateway:
    """Both wires over one pipeline."""

    def __init__(self, host: GatewayHost) -> None:
        self._clock = host.clock
        self.routes = RouteTable(public_services())
        self._mounts = MountTable(host.store)
        self._gate = TokenGate(host.services["auth"], host.views["auth"], host.clock)
        self._shared_clock = SharedClock(host.store, host.clock, _CLOCK_SECONDS)
        wraps = WrapStore(host.store, self._shared_clock)
        own = HandlerTable()
        auth: StreamCaller = WithBoundsOfMounts(host.services["auth"], self._mounts)
        auth = WithJudgedPaths(auth, self.routes, self._mounts)
        auth = WithWrappingTokens(auth, wraps)
        services = {**host.services, "auth": auth, "sys": LocalCaller(own)}
        self._mount_handlers = MountHandlers(self._mounts, services, self._acl_of)
        self._wrapping = WrappingHandlers(wraps)
        system = SystemHandlers(
            host.services["seal"], host.clock, host.address, self._open_api, self._help_on
        )
        own.add(mounts_pb2.DESCRIPTOR.services_by_name["MountService"], self._mount_handlers)
        own.add(wrapping_pb2.DESCRIPTOR.services_by_name["WrappingService"], self._wrapping)
        own.add(system_pb2.DESCRIPTOR.services_by_name["SystemService"], system)
        settings = SettingsStore(host.store)
        self._versions = VersionHistory(host.store)
        observer = Observer(host.telemetry, host.metrics)
        for module, name, handlers in (
            (
                observe_pb2,
                "ObserveService",
                ObserveHandlers(host.metrics, observer, self._versions, self._mounts),
            ),
            (config_pb2, "ConfigService", ConfigHandlers(settings, host.state)),
            (quotas_pb2, "QuotaService", QuotaHandlers(settings, self._mounts)),
            (plugins_pb2, "PluginService", PluginHandlers(self._mounts)),
            (
                locked_users_pb2,
                "LockedUserService",
                LockedUserHandlers(self._mounts, host.services["auth"]),
            ),
        ):
            own.add(module.DESCRIPTOR.services_by_name[name], handlers)
        host.metrics.watch_seal(host.sealed)
        append = host.append or GroupedAppends(host.services["audit"]).append
        audit = AuditSink(host.services["audit"], host.views["audit"], host.metrics, append)
        rules = Rules(settings, host.services["auth"], audit, host.clock, host.metrics)
        admission = Admission(self._gate, self._mounts, host.sealed)
        self.pipeline = Pipeline(services, admission, rules, audit, wraps, observer)
        self.streams = Streams(services, admission, rules, audit)
        self.http = HttpWire(
            self.routes,
            self._mounts,
            self.pipeline,
            self.streams,
            settings,
            host.clock,
            admission.check_seal,
            OlderUnwrap(self.routes, wraps),
        )
        self.grpc = GrpcWire(self.routes, self._mounts, self.pipeline, self.streams, host.clock)
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Finds out the time, and starts background work. Called once there are keys, again after each unseal.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        self._tasks.start(self._shared_clock.run(), "gateway-clock")
        try:
            await self._shared_clock.ready()
        except ServiceError:
            await self.stop()
            raise
        self._tasks.start(self._mount_handlers.finish_changes(), "mount-removals")
        self._tasks.start(self._wrapping.sweep(), "wrap-sweep")
        await self._versions.note(version(), self._clock.now())

    async def stop(self) -> None:
        """Ends background work."""
        await self._tasks.stop()
        self._shared_clock.forget()

    async def _acl_of(self, context: RequestContext) -> Acl | None:
        if context.token is None:
            return None
        return await self._gate.acl(context.token.policies, context)

    async def _help_on(self, path: str) -> str:
        if path.startswith(ABSOLUTE):
            return path_help(self.routes, None, path)
        found = (await self._mounts.current()).find(path + "/")
        if found is None:
            return ""
        mount, _ = found
        relative = path[len(mount.path) :]
        if not relative:
            return mount_help(self.routes, mount.kind, mount.path)
        return path_help(self.routes, mount.kind, relative)

    async def _open_api(self, generic: bool, context: RequestContext) -> bytes:
        from strongroom_gateway.contract.openapi import describe

        acl = await self._acl_of(context)
        if generic or acl is None:
            return await asyncio.to_thread(describe, self.routes)
        mounts = (await self._mounts.current()).mounts
        shown = [(path, m.kind) for path, m in mounts.items() if acl.any_below(path)]
        return await asyncio.to_thread(describe, self.routes, shown)

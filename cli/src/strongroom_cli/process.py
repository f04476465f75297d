"""One server process: some services, with what they share. Built by hand, top to bottom."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.descriptor import ServiceDescriptor

from strongroom.audit.v1 import audit_pb2
from strongroom.auth.v1 import gate_pb2, token_lease_pb2
from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import cubbyhole_pb2
from strongroom.seal.v1 import seal_pb2
from strongroom.transit.v1 import key_pb2
from strongroom_cli import services
from strongroom_cli.keys import KeySource, LocalKeys, RemoteKeys, Runs
from strongroom_cli.settings import (
    SCALED,
    VIEWED,
    ServerConfig,
    calls_of,
    is_everywhere,
    public_url,
    sanitized,
)
from strongroom_gateway.contract.public import public_services
from strongroom_runtime.barrier import BarrierCodec, KeyHolder
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.codec import RawCodec
from strongroom_runtime.etcd.directory import Directory
from strongroom_runtime.etcd.lineage import Lineage
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.etcd.waiting import Waiting
from strongroom_runtime.handlers import HandlerTable, LocalCaller, Shape, StreamCaller, shape_of
from strongroom_runtime.health import HealthServer
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.link.local_first import LocalFirst
from strongroom_runtime.link.peers import PeerClient, PeerHandlers
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.otlp import exported
from strongroom_runtime.ports import address_towards, hostport, split_hostport
from strongroom_runtime.service import Host, Service
from strongroom_runtime.tasks import end
from strongroom_runtime.telemetry import from_environment
from strongroom_runtime.tracing import traced
from strongroom_runtime.transport.credentials import Identities
from strongroom_runtime.transport.leaving import Patience
from strongroom_runtime.transport.names import MEMBER
from strongroom_runtime.transport.server import InternalServer

if TYPE_CHECKING:
    from strongroom_audit.log import AuditLog
    from strongroom_audit.service import AuditService
    from strongroom_cli.public import PublicServers
    from strongroom_gateway.audit.grouped import Append
    from strongroom_gateway.gateway import Gateway
    from strongroom_runtime.otlp_metrics import MetricsExport
    from strongroom_seal.service import SealService

log = logging.getLogger(__name__)

_LOOK_SECONDS = 30.0  # for certificates that were renewed

# What each process may call of services elsewhere.
_CALLABLE: tuple[ServiceDescriptor, ...] = (
    *public_services(),
    gate_pb2.DESCRIPTOR.services_by_name["TokenGateService"],
    token_lease_pb2.DESCRIPTOR.services_by_name["TokenLeaseService"],
    audit_pb2.DESCRIPTOR.services_by_name["AuditLogService"],
    cubbyhole_pb2.DESCRIPTOR.services_by_name["KvLifecycleService"],
    lease_pb2.DESCRIPTOR.services_by_name["LeaseLifecycleService"],
    seal_pb2.DESCRIPTOR.services_by_name["SealService"],
    key_pb2.DESCRIPTOR.services_by_name["TransitLifecycleService"],
)

_BATCHES = frozenset(
    f"/{service.full_name}/{rpc.name}"
    for service in _CALLABLE
    for rpc in service.methods
    if shape_of(rpc) is Shape.BATCHES
)


class Process:
    """The services of one process.

    Args:
        config: what the operator chose.
        etcd: how to reach the cluster.
        patience: with streams that are open in the end.
    """

    def __init__(self, config: ServerConfig, etcd: EtcdConfig, patience: Patience) -> None:
        self._config = config
        name = "gateway" if "gateway" in config.targets else config.targets[0]
        first = (name, *(other for other in config.targets if other != name))
        self._identities = Identities(config.certificates, config.trust_domain, first)
        self._looking = asyncio.Lock()
        self._looker: asyncio.Task[None] | None = None
        self.lineage = Lineage()  # what this process has in memory is worth nothing once it breaks
        self._client = EtcdClient(etcd, self.lineage)
        self._peers = PeerClient(self._identities.connector(name, MEMBER))
        self._cluster = Cluster(self._client, self._confirm)
        self._table = HandlerTable()
        self._local = LocalCaller(self._table)
        self._remote: dict[tuple[str, str], RemoteCaller] = {}  # by who calls and who is called
        self._directory = Directory(self._client)
        self._holders = {name: KeyHolder() for name in config.targets if name != "seal"}
        self._services: dict[
            str, Service
        ] = {}  # those that need keys, in the order in which they start
        self._seal: SealService | None = None
        self._audit: AuditService | None = None
        self._gateway: Gateway | None = None
        self._public: PublicServers | None = None
        self._keys: KeySource | None = None
        self._address = ""
        self._serving = self._leaving = False
        self._health = HealthServer(lambda: self.ready)
        self._telemetry = {name: from_environment(name) for name in config.targets}
        self._metrics = Metrics()
        self._export = _metrics_export(self._metrics, name)
        self._patience = patience
        self._internal = InternalServer(
            self._table,
            self._identities,
            telemetry=self._telemetry[name],
            patience=patience,
            takes=self._takes_calls,
        )

    async def start(self, stop: asyncio.Event) -> None:
        """Starts everything and returns once clients are answered, if only that the seal is closed.

        Waits for etcd for as long as that takes; until then it lives and is not ready.

        Args:
            stop: ends the waiting.

        Raises:
            EndedError: it was told to stop while it waited.
            OSError: an address cannot be listened on.
            ServiceError: etcd refuses this process, or the seal's key is not the right one.
        """
        config, etcd = self._config, Waiting(stop)
        if config.health_listen:
            await self._health.start(config.health_listen)
        self._find_services()
        self._build()
        PeerHandlers(self._cluster.applied).register(self._table)
        host = await etcd.until_done(self._own_host)
        port = await self._internal.start(
            config.internal_listen, config.direct_listen, self._direct_reached(host)
        )
        self._address = config.advertise or hostport(host, port)
        service = self._identities.services[0]
        await etcd.until_done(lambda: self._cluster.start(self._address, service, config.member))
        self._directory.start()
        await self._cluster.announce(self._without_keys)
        if self._seal is not None:
            self._keys = LocalKeys(self._seal.seal, self._holders, self._running())
        else:
            connects = {name: self._identities.connector(name, "seal") for name in self._holders}
            self._keys = RemoteKeys(connects, self._seals, self._holders, self._running())
        self._keys.start()
        if self._seal is not None:
            await etcd.until_done(self._seal.start)
        if self._export is not None:
            self._export.start()
        if self._gateway is not None:
            from strongroom_cli.public import PublicServers

            self._public = PublicServers(config, self._gateway, self._patience, self._reaches)
            await self._public.start()
        self._looker = asyncio.create_task(self._look_for_certificates(), name="certificates")

    async def stop(self) -> None:
        """Answers what is under way, then ends, clients first and storage last."""
        self._leaving = True
        if self._looker is not None:
            await end(self._looker)
        # While there are keys: what is under way needs them.
        if self._public is not None:
            await self._public.stop_http()
            await asyncio.gather(self._public.stop_grpc(), self._leave_callers())
        else:
            await self._leave_callers()
        if self._keys is not None:
            await self._keys.stop()
        if self._seal is not None:
            await self._seal.stop()
        await self._internal.stop()
        await self._directory.stop()
        for remote in self._remote.values():
            await remote.close()
        await self._cluster.stop()
        await self._peers.close()
        await self._client.close()
        ends = [telemetry.stop() for telemetry in self._telemetry.values()]
        if self._export is not None:
            ends.append(self._export.stop())
        await asyncio.gather(*ends)
        self._health.stop()

    async def _leave_callers(self) -> None:
        """Sends other processes elsewhere, and answers what there is."""
        await self._cluster.announce(())
        await self._internal.drain()

    @property
    def ready(self) -> bool:
        """Whether it is unsealed and takes calls; a seal gives keys to others only then, too."""
        closed = self._seal is not None and self._seal.seal.sealed
        return self._serving and not closed and not self._leaving

    def _reaches(self, name: str) -> bool:
        """Whether requests to a service are answered through the gateway of this process."""
        remote = self._remote.get(("gateway", name))
        there = remote is None or remote.usable or name in self._config.targets
        # What the seal answers, it answers without keys as well.
        return there and (self.ready or name == "seal")

    async def reopen_logs(self) -> None:
        """Opens audit files anew, after they were moved away."""
        if self._audit is not None:
            await self._audit.log.reopen()

    async def renew_certificates(self) -> None:
        """Takes certificates that were renewed, everywhere that they are shown."""
        async with self._looking:  # a signal may come in the middle of a look
            self._identities.look()
            self._client.look()
            if self._public is not None:
                await self._public.look()

    async def _look_for_certificates(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.renew_certificates()

    def _build(self) -> None:
        """Builds the services of this process."""
        config = self._config
        for name in config.targets:
            if name == "seal":
                self._seal = services.seal(
                    Host(self._raw_store(), peers=self._callers(name)), config
                )
            elif name == "audit":
                self._audit = self._services[name] = services.audit(self._host(name), config)
            elif name != "gateway":
                self._services[name] = services.BUILD[name](self._host(name), config)
        for service in self._services.values():
            self._table.include(service.handlers)
        if self._seal is not None:
            self._table.include(self._seal.handlers)
        if "gateway" in config.targets:
            self._gateway = self._build_gateway()

    def _host(self, name: str) -> Host:
        return Host(self._store(name), peers=self._callers(name), membership=self._cluster)

    def _build_gateway(self) -> "Gateway":
        from strongroom_gateway.gateway import Gateway, GatewayHost
        from strongroom_gateway.system.seals import Seals

        holder, callers = self._holders["gateway"], self._callers("gateway")
        seals = self._remote.get(("gateway", "seal"))
        append = None
        if self._audit is not None and not self._telemetry["audit"].enabled:
            append = _appending_to(self._audit.log)  # where spans are wanted, calls show them
        return Gateway(
            GatewayHost(
                store=self._store("gateway"),
                services=callers if seals is None else {**callers, "seal": Seals(seals)},
                views={name: self._cluster.view(f"{name}/") for name in VIEWED},
                sealed=lambda: holder.sealed,
                address=public_url(self._config),
                telemetry=self._telemetry["gateway"],
                metrics=self._metrics,
                state=sanitized(self._config),
                append=append,
            )
        )

    def _callers(self, caller: str) -> dict[str, StreamCaller]:
        """Returns who answers a service of this process, by the services that it calls: this process, or others."""
        return {name: self._answering(caller, name) for name in calls_of(caller)}

    def _answering(self, caller: str, called: str) -> StreamCaller:
        remote = self._remote.get((caller, called))
        if remote is not None and called not in self._config.targets:
            return remote
        local = traced(self._local, self._telemetry[called])
        return local if remote is None else LocalFirst(local, remote, _BATCHES)

    def _find_services(self) -> None:
        """Prepares to call services elsewhere: those that are named, and those that members of the cluster run.

        Each service calls by its own certificate: what it may call, others in its process may not.
        """
        for caller in self._config.targets:
            for called in calls_of(caller):
                if called not in self._config.targets or called in SCALED:
                    self._remote[caller, called] = self._elsewhere(caller, called)

    def _elsewhere(self, caller: str, called: str) -> RemoteCaller:
        connect = self._identities.connector(caller, called)
        named = self._config.remote.get(called, ())
        remote = RemoteCaller(connect, named, response_classes(*_CALLABLE))
        if called in SCALED or not named:
            self._directory.subscribe(called, partial(self._use, remote))
        return remote

    def _use(self, remote: RemoteCaller, addresses: frozenset[str]) -> None:
        remote.use(addresses - {self._address})

    async def _own_host(self) -> str:
        """Returns the host by which others reach this process."""
        config = self._config
        if config.advertise:
            return split_hostport(config.advertise)[0]
        if is_everywhere(config.internal_listen):
            return await address_towards(config.etcd_endpoints)
        return split_hostport(config.internal_listen)[0]

    def _direct_reached(self, host: str) -> str:
        """Returns where callers find connections beside streams; port 0 is the one that is listened on."""
        config = self._config
        if config.direct_advertise:
            return config.direct_advertise
        if config.direct_listen and not is_everywhere(config.direct_listen):
            host = split_hostport(config.direct_listen)[0]
        return hostport(host, 0)

    def _seals(self) -> Sequence[str]:
        return self._config.remote.get("seal") or sorted(self._directory.addresses("seal"))

    def _takes_calls(self) -> bool:
        """Returns whether others may call: the seal always, all else once it has keys.

        Callers that have its address from a configuration would come while it starts.
        """
        return self._serving or "seal" in self._config.targets

    @property
    def _without_keys(self) -> tuple[str, ...]:
        """What answers here while there are no keys: the seal, which gives them."""
        return tuple(name for name in self._config.targets if name == "seal")

    async def start_serving(self) -> None:
        """Says that the services of this process take calls."""
        self._serving = True
        served = tuple(name for name in self._config.targets if name != "gateway")
        await self._cluster.announce(() if self._leaving else served)

    async def stop_serving(self) -> None:
        """Says that they do not."""
        self._serving = False
        await self._cluster.announce(() if self._leaving else self._without_keys)

    def _raw_store(self) -> EtcdStore:
        """Returns the seal's, which is there before there are keys."""
        return EtcdStore(self._client, RawCodec("seal"), self._cluster, metrics=self._metrics)

    def _store(self, name: str) -> EtcdStore:
        holder = self._holders[name]
        store = EtcdStore(
            self._client,
            BarrierCodec(name, holder),
            self._cluster,
            self._telemetry[name],
            self._metrics,
        )
        holder.on_seal.append(store.forget)
        return store

    def _running(self) -> list[Runs]:
        """Returns what runs only while there are keys, in the order in which it starts."""
        running: list[Runs] = list(self._services.values())
        if self._gateway is not None:
            running.append(self._gateway)
        running.append(_Announced(self))
        return running

    async def _confirm(
        self, address: str, prefix: str, revision: int, timeout_seconds: float
    ) -> None:
        await self._peers.confirm(address, prefix, revision, timeout_seconds)


class _Announced:
    """Says that a process takes calls, once everything runs and until the first thing stops."""

    def __init__(self, process: Process) -> None:
        self.start = process.start_serving
        self.stop = process.stop_serving


def _appending_to(log: "AuditLog") -> "Append":
    """Returns what appends the entries of a request to a log of this process."""
    return lambda entries, context: log.append(entries)


def _metrics_export(metrics: Metrics, name: str) -> "MetricsExport | None":
    if not exported("METRICS"):
        return None
    from strongroom_runtime.otlp_metrics import from_environment as export

    return export(metrics.registry, name)

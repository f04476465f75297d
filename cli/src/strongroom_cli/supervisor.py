"""The processes of a platform on one machine: an embedded etcd and the servers, restarted when they die."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from strongroom_cli.claims import check_address, claim_folder
from strongroom_cli.mortality import Living, bury_dead
from strongroom_cli.outside_etcd import etcd_config
from strongroom_cli.settings import SERVICES, ServerConfig
from strongroom_cli.spawning import Running, Spawner
from strongroom_runtime.children import HURRY, LEAVE
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.members import CLUSTER
from strongroom_runtime.etcd.releases import known_data_loss
from strongroom_runtime.etcd.server import EmbeddedEtcd, release
from strongroom_runtime.etcd.upkeep import Upkeep
from strongroom_runtime.etcd.waiting import Waiting
from strongroom_runtime.files import write_whole
from strongroom_runtime.ports import free_port, keep_port
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.tasks import end
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity

log = logging.getLogger(__name__)

_BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0)
# For what has failed for a minute: each start costs CPU, and leaves a record of its audit chain in etcd.
_HOPELESS_FAILURES, _HOPELESS_SECONDS = 30, 30.0
_STABLE_SECONDS = 10.0
_RENEW_SECONDS = 86_400.0  # of certificates that have 275 days left when they are due
_BURY_SECONDS = 2.0
_LEFTOVER_SECONDS, _LOOK_SECONDS = 10.0, 0.05
_LOG_SECONDS = 60.0
_STOP_SECONDS = 25.0  # beside the time that streams have


@dataclass(slots=True)
class Child:
    """A server process.

    Args:
        name: in the log.
        arguments: of its command.
        leaves_first: it has clients, and what they were promised needs those that do not leave first.
    """

    name: str
    arguments: list[str]
    leaves_first: bool
    process: Running | None = None
    failures: int = 0
    task: asyncio.Task[None] | None = field(default=None)

    @property
    def pid(self) -> int:
        """Its id; 0 while it does not run."""
        running = self.process is not None and self.process.returncode is None
        return self.process.pid if running and self.process else 0


class Supervisor:
    """Starts, watches and ends the processes of a platform.

    Args:
        config: of the platform; its targets are spread over processes.
        spawner: what starts the servers.
    """

    def __init__(self, config: ServerConfig, spawner: Spawner) -> None:
        self._config = config
        self._spawner = spawner
        self._etcd: EmbeddedEtcd | None = None
        self._etcd_tasks: list[asyncio.Task[None]] = []
        self._upkeep: Upkeep | None = None
        self._living = Living(config.data_dir / "living")
        self._client: EtcdClient | None = None
        self._children: list[Child] = []
        self._stopping = self._hurried = False
        self._ending: list[
            Child
        ] = []  # those that were told to end, and not yet those that they need
        self._burying = Repeated("the burial of dead processes")
        self._claim = -1
        self._renewal: asyncio.Task[None] | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The ids of all processes, by name."""
        pids = {child.name: child.pid for child in self._children}
        if self._etcd is not None:
            pids["etcd"] = self._etcd.pid
        return pids

    async def start(self) -> None:
        """Makes what is missing on the disk, and starts everything.

        Raises:
            RuntimeError: etcd cannot be started, or something else has the folder or an address.
            ValueError: a certificate, or the trust domain, is not what it should be.
        """
        config = self._config
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim = claim_folder(config.data_dir)
        if "gateway" in config.targets:
            await self._check_addresses()
        if config.pki_dir is None:
            self.renew_certificates()
            self._renewal = asyncio.create_task(self._renew_daily(), name="renew-certificates")
        else:
            pki.check(config.pki_dir, config.trust_domain, config.targets)
        await self._spawner.begin()
        if config.static_key_file is not None and config.seal_key_file is None:
            _make_static_key(config.static_key_file)
        if not config.etcd_endpoints:
            config = await self._start_etcd(config)
        self._client = EtcdClient(etcd_config(config))
        await self._bury_dead()
        for name, each in plan(config):
            child = Child(name, _arguments(each), leaves_first=_leaves_first(each))
            self._children.append(child)
            await self._spawn(child)
            child.task = asyncio.create_task(self._watch(child), name=f"watch-{name}")

    async def reach_etcd(self, stop: asyncio.Event) -> None:
        """Returns once etcd answers, and warns of its release. The servers wait for it by themselves.

        Args:
            stop: ends the waiting.

        Raises:
            EndedError: it was told to stop while it waited.
            RefusedError: etcd takes none of the servers, as they are configured.
        """
        if self._etcd is None:
            await Waiting(stop).until_done(partial(_ask, etcd_config(self._config)))
            await _warn_of_release(self._config)

    async def stop(self) -> None:
        """Ends the servers, those with clients before those that answer them, then etcd."""
        self._stopping = True
        if self._renewal is not None:
            await end(self._renewal)
        watching = [child.task for child in self._children if child.task is not None]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        first = [child for child in self._children if child.leaves_first]
        for some in (first, [child for child in self._children if not child.leaves_first]):
            self._ending = some
            _signal(some, HURRY if self._hurried else LEAVE)
            seconds = _STOP_SECONDS + self._config.stream_drain_seconds
            await asyncio.gather(*(_ended(child, seconds) for child in some))
        await self._spawner.close()
        await self._bury_dead()
        if self._client is not None:
            await self._client.close()
        for task in self._etcd_tasks:
            await end(task)
        if self._upkeep is not None:
            await self._upkeep.close()
        if self._etcd is not None:
            await self._etcd.stop()
        if self._claim >= 0:
            os.close(self._claim)

    def signal(self, number: int) -> None:
        """Passes a signal on to the servers."""
        _signal(self._children, number)

    def hurry(self) -> None:
        """Lets `stop` wait for streams no more; it keeps the order in which it ends the servers."""
        self._hurried = True
        _signal(self._ending, HURRY)

    def renew_certificates(self) -> None:
        """Makes the certificates that are missing, and issues those anew that end before long.

        The servers see them within half a minute; etcd reads its own with each connection.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: a certificate, or the trust domain, is not what it should be.
        """
        config = self._config
        made = pki.initialise(
            config.certificates, config.trust_domain, [*SERVICES, "etcd", "client"]
        )
        if made:
            log.info("certificates were issued", extra={"services": ", ".join(made)})

    async def _renew_daily(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                self.renew_certificates()
            except (OSError, ValueError) as error:
                log.error("certificates cannot be renewed", extra={"reason": str(error)})

    async def _start_etcd(self, config: ServerConfig) -> ServerConfig:
        """Starts the embedded etcd; returns the configuration with it in it."""
        self._etcd = EmbeddedEtcd(
            config.data_dir / "etcd",
            Identity.of(config.certificates, "etcd"),
            quota_mib=config.etcd_quota_mib,
        )
        await self._etcd.start()
        warning = known_data_loss(await release(self._etcd.config))
        if warning:
            log.info(warning)
        self._upkeep = Upkeep(self._etcd.nearby, self._etcd.quota_bytes)
        try:
            await self._upkeep.begin()
        except ServiceError as error:  # what runs later tries it again
            log.warning("no room was made in etcd", extra={"reason": error.message})
        self._etcd_tasks = [
            asyncio.create_task(self._watch_etcd(self._etcd), name="watch-etcd"),
            asyncio.create_task(self._upkeep.run(), name="etcd-upkeep"),
            asyncio.create_task(_shorten_log(self._etcd), name="shorten-etcd-log"),
        ]
        return replace(
            config,
            etcd_endpoints=self._etcd.nearby.endpoints,
            etcd_pki_dir=config.certificates if self._etcd.nearby.identity else None,
        )

    async def _watch_etcd(self, etcd: EmbeddedEtcd) -> None:
        while True:
            await etcd.wait()
            log.warning("etcd ended; starting it again")
            await asyncio.sleep(_BACK_OFF[0])
            try:
                await etcd.start()
            except (RuntimeError, ServiceError, OSError) as error:
                log.error("etcd does not start", extra={"reason": str(error)})
                await asyncio.sleep(_BACK_OFF[-1])

    async def _check_addresses(self) -> None:
        """Returns once the addresses are free: servers of a supervisor that was killed are about to end.

        Raises:
            RuntimeError: something else has one, or it is none of this machine.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LEFTOVER_SECONDS
        while True:
            try:
                check_address("listen", self._config.listen)
                check_address("grpc_listen", self._config.grpc_listen)
                return
            except RuntimeError:
                if not self._living.any() or loop.time() > deadline:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    async def _spawn(self, child: Child) -> None:
        """Starts a process, and does so to the end: nobody would tell one to end that is not known."""
        name, descriptor = self._living.name()
        try:
            arguments = [*child.arguments, f"--member={name}"]
            spawning = asyncio.ensure_future(self._spawner.spawn(arguments, descriptor))
            try:
                await asyncio.shield(spawning)
            finally:
                child.process = await spawning
        finally:
            os.close(descriptor)

    async def _bury_dead(self) -> None:
        """Sees to it that no writer waits for what has ended, if that can be done within a moment."""
        if self._client is not None:
            with self._burying.turn(), contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BURY_SECONDS):
                    await bury_dead(self._client, self._living)

    async def _watch(self, child: Child) -> None:
        """Starts a server again when it dies, more slowly if it dies at once."""
        loop = asyncio.get_running_loop()
        while not self._stopping and child.process is not None:
            started = loop.time()
            status = await child.process.wait()
            if self._stopping:
                return
            child.failures = 0 if loop.time() - started > _STABLE_SECONDS else child.failures + 1
            log.warning("a server ended", extra={"server": child.name, "status": status})
            # Beside each other: where etcd is away, nobody can be buried, and the new one waits for it by itself.
            async with asyncio.TaskGroup() as group:
                group.create_task(self._bury_dead())
                await asyncio.sleep(_pause(child.failures))
                await self._spawn_again(child)

    async def _spawn_again(self, child: Child) -> None:
        """Starts a server as soon as the system lets it: it may have no memory for one, or no room on the disk."""
        while True:
            try:
                await self._spawn(child)
                return
            except OSError as error:
                log.error(
                    "a server cannot be started",
                    extra={"server": child.name, "reason": error.strerror},
                )
                await asyncio.sleep(_BACK_OFF[-1])


def _pause(failures: int) -> float:
    """Returns after how many seconds to start what ended soon after so many of its starts."""
    if failures > _HOPELESS_FAILURES:
        return _HOPELESS_SECONDS
    return _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]


async def _shorten_log(etcd: EmbeddedEtcd) -> None:
    work = Repeated("putting etcd's log aside", logging.ERROR)
    while True:
        await asyncio.sleep(_LOG_SECONDS)
        with work.turn():
            etcd.shorten_log()


async def _ask(etcd: EtcdConfig) -> None:
    """Asks etcd for what every user may read."""
    client = EtcdClient(etcd)
    try:
        await client.range(CLUSTER, limit=1)
    finally:
        await client.close()


async def _warn_of_release(config: ServerConfig) -> None:
    with contextlib.suppress(ServiceError):  # some releases tell theirs to root alone
        warning = known_data_loss(await release(etcd_config(config)))
        if warning:
            log.warning(warning)


def plan(config: ServerConfig) -> list[tuple[str, ServerConfig]]:
    """Returns the processes of a platform, with the configuration of each."""
    if config.split:
        return _split(config)
    first_address = f"127.0.0.1:{_own_port()}"
    name = "server" if config.target == "all" else config.target
    if config.workers == 1:
        return [(name, config)]
    # One process has the seal, which keeps what people gave in memory; the others take their keys from it.
    first = replace(config, internal_listen=first_address)
    others = ",".join(target for target in config.targets if target != "seal")
    services = (*config.services, f"seal={first_address}")
    rest = replace(config, target=others, services=services, internal_listen="127.0.0.1:0")
    return [
        (f"{name}-0", first),
        *((f"{name}-{number}", rest) for number in range(1, config.workers)),
    ]


def _own_port() -> int:
    """Returns a port for a server that may be started again, and is gone for a moment then."""
    port = free_port()
    keep_port(port)
    return port


def _leaves_first(config: ServerConfig) -> bool:
    """Returns whether a process is a gateway alone. One of several workers needs no other, and keeps its keys."""
    return config.targets == ("gateway",)


def _split(config: ServerConfig) -> list[tuple[str, ServerConfig]]:
    addresses = {name: f"127.0.0.1:{_own_port()}" for name in config.targets}
    known = (*config.services, *(f"{name}={address}" for name, address in addresses.items()))
    processes: list[tuple[str, ServerConfig]] = []
    for name in config.targets:
        each = replace(
            config,
            target=name,
            split=False,
            internal_listen=addresses[name],
            services=tuple(s for s in known if not s.startswith(f"{name}=")),
        )
        if name != "gateway" or config.workers == 1:
            processes.append((name, each))
            continue
        for number in range(config.workers):
            listen = addresses[name] if number == 0 else "127.0.0.1:0"
            processes.append((f"gateway-{number}", replace(each, internal_listen=listen)))
    return processes


def _arguments(config: ServerConfig) -> list[str]:
    """Returns the arguments of one process, those first by which it is told from others."""
    arguments = ["serve-one"]
    flags: list[tuple[str, Callable[[ServerConfig], object]]] = [
        (name, lambda c, n=name: getattr(c, n))  # type: ignore[misc]
        for name in ServerConfig.__dataclass_fields__
        if name != "split"
    ]
    for name, read in flags:
        value = read(config)
        empty = value is None or value == () or value == ""
        if empty and value == ServerConfig.__dataclass_fields__[name].default:
            continue
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        arguments.append(f"--{name.replace('_', '-')}={text}")
    return arguments


def _signal(children: Iterable[Child], number: int) -> None:
    for child in children:
        if child.pid and child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(number)


async def _ended(child: Child, seconds: float) -> None:
    if child.process is None:
        return
    try:
        await asyncio.wait_for(child.process.wait(), seconds)
    except TimeoutError:
        log.warning("a server does not end; ending it by force", extra={"server": child.name})
        child.process.kill()
        await child.process.wait()


def public_ca(config: ServerConfig) -> Path | None:
    """Returns the certificate by which clients know the platform; None without TLS, or with one from elsewhere."""
    if not config.tls or config.tls_cert is not None:
        return None
    return config.certificates / "ca.pem"


def _make_static_key(file: Path) -> None:
    """Makes the key of a static seal where it is missing, readable by its owner alone."""
    if file.exists():
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, os.urandom(32))

"""Three platforms and a replica of transit on one etcd of three members, in which everything can be hurt."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from strongroom_runtime.etcd.server import find_binary
from tests.histories.clients import Gateways
from tests.histories.network import Network
from tests.integration.client import Client
from tests.integration.platforms import BIN, until
from tests.ports import free_port

_START_SECONDS = 90.0
_STOP_SECONDS = 90.0
_AUDIT_LOG = "audit.log"


class Member:
    """A member of etcd. The others reach it over a link, clients at its port.

    Args:
        folder: has its log.
        name: of it.
        arguments: of its command.
        port: for clients.
        link: for the others.
    """

    def __init__(
        self, folder: Path, name: str, arguments: Sequence[str], port: int, link: int
    ) -> None:
        self.name, self.port, self.link = name, port, link
        self.id = ""  # as it calls itself before the others
        self._log = folder / f"{name}.log"
        self._command = [str(find_binary()), f"--name={name}", *arguments]
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def status(self) -> Any:
        """Asks it who it is, and whom it follows."""
        asked = subprocess.run(
            [str(BIN / "etcdctl"), f"--endpoints=127.0.0.1:{self.port}", "--command-timeout=3s",
             "endpoint", "status", "--write-out=json"],
            env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.returncode:
            raise OSError(asked.stderr)
        return json.loads(asked.stdout)[0]["Status"]

    def leads(self) -> bool:
        """Returns whether it is the leader, as far as it knows."""
        with contextlib.suppress(OSError):
            status = self.status()
            # One that knows of no leader names none.
            return bool(status.get("leader") == status["header"]["member_id"])
        return False


class Etcd:
    """Three members.

    Args:
        folder: has their data.
        network: carries what they say to each other.
    """

    def __init__(self, folder: Path, network: Network) -> None:
        self._network = network
        folder.mkdir(parents=True)
        ports, peers = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
        links = [network.carry(peer, named=True) for peer in peers]
        cluster = ",".join(f"m{n}=http://127.0.0.1:{link}" for n, link in enumerate(links))
        self.members = [
            Member(
                folder, f"m{n}",
                [
                    f"--data-dir={folder / str(n)}", "--logger=zap", "--log-outputs=stderr",
                    f"--listen-client-urls=http://127.0.0.1:{ports[n]}",
                    f"--advertise-client-urls=http://127.0.0.1:{ports[n]}",
                    f"--listen-peer-urls=http://127.0.0.1:{peers[n]}",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{links[n]}",
                    f"--initial-cluster={cluster}",
                ],
                ports[n], links[n],
            )
            for n in range(3)
        ]  # fmt: skip
        for member in self.members:
            member.id = f"{until(member.status)['header']['member_id']:x}"

    def leader(self) -> Member | None:
        """Returns the member that leads, if one does."""
        return next((member for member in self.members if member.leads()), None)

    def cut_off(self, member: Member) -> None:
        """Lets a member and the others hear nothing of each other. Clients reach all of them."""
        for other in self.members:
            if other is member:
                self._network.cut(other.link)
            else:
                self._network.cut_off(other.link, member.id)

    def heal(self) -> None:
        for member in self.members:
            self._network.heal(member.link)

    def kill(self) -> None:
        for member in self.members:
            member.kill()


@dataclass
class Site:
    """A supervisor and its processes, which reach etcd over links of their own.

    Args:
        name: of it.
        folder: has its state and its log.
        arguments: of its command.
        address: of its gateway's HTTP wire; empty where it has no gateway.
        grpc_address: of its gRPC wire.
        to_etcd: the links to the members of etcd.
        to_it: the links over which other processes reach it, where there are some.
        lock: is held by whoever hurts it as a whole, until it is well again.
    """

    name: str
    folder: Path
    arguments: Sequence[str]
    address: str
    grpc_address: str
    to_etcd: Sequence[int]
    to_it: Sequence[int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "strongroom"), *self.arguments], stdout=log, stderr=log
            )

    @property
    def supervisor(self) -> "subprocess.Popen[bytes]":
        assert self.process is not None, "it was never started"
        return self.process

    def ready(self) -> Any:
        """Returns what it wrote when it was ready."""
        return json.loads((self.folder / "ready.json").read_text())

    def processes(self) -> list[psutil.Process]:
        """Returns its processes as they are now, the supervisor first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.supervisor.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        return []

    def servers(self) -> list[tuple[str, int]]:
        """Returns what its server processes serve, and their ids."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "serve-one" in (command := process.cmdline()):
                    (target,) = (a for a in command if a.startswith("--target="))
                    found.append((target.removeprefix("--target="), process.pid))
        return sorted(found)

    def stop(self) -> bool:
        """Ends it in order; returns whether it ended in time."""
        processes = self.processes()
        self.supervisor.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.supervisor.wait(_STOP_SECONDS)
            return True
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.supervisor.wait()
        return False

    def kill(self) -> None:
        """Ends its supervisor, and with it all its processes."""
        self.supervisor.kill()
        self.supervisor.wait()


class Estate:
    """A platform with a process for each service, one with two workers, one in one process, and a replica of transit.

    Args:
        folder: has all state and all logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network()
        self.etcd = Etcd(folder / "etcd", self.network)
        self.etcd_lock = threading.Lock()
        data = folder / "split" / "data"
        shared = (f"--pki-dir={data / 'pki'}", f"--seal-key-file={data / 'seal.key'}")
        self.sites = [
            self._site("split", "--split"),
            self._site("workers", "--workers=2", *shared),
            self._reached_over_links("single", *shared),
            self._reached_over_links("transit", "--target=transit", *shared),
        ]
        self.platforms = self.sites[:3]

    def start(self) -> None:
        """Starts the sites, and returns when all gateways serve."""
        split = self.sites[0]
        split.start()  # makes the certificates and the key of the seal
        until(split.ready, _START_SECONDS)
        for site in self.sites[1:]:
            site.start()
        for site in self.platforms:
            until(site.ready, _START_SECONDS)
        self.gateways = Gateways(
            [site.address for site in self.platforms],
            [site.grpc_address for site in self.platforms],
            split.ready()["ca_cert"],
            split.ready()["root_token"],
        )
        self.wait_until_all_serve()

    def ask(self, site: Site, method: str, path: str, body: Any = None) -> Any:
        """Asks a platform as root; returns its answer.

        Raises:
            OSError: there is none, or it is no good one.
        """
        with Client(site.address, self.gateways.ca, 20) as client:
            answer = client.ask(method, path, self.gateways.root, json=body)
        if not answer.ok:
            raise OSError(f"{site.name}: {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def wait_until_all_serve(self, seconds: float = _START_SECONDS) -> None:
        """Returns once each gateway reads and writes what the services behind it have.

        Raises:
            OSError: one does not in time; the text says what it answers.
        """
        for site in self.platforms:
            until(lambda: self._serves(site), seconds)  # noqa: B023 - asked at once

    def _serves(self, site: Site) -> bool:
        self.ask(site, "POST", "secret/data/alive", {"data": {"by": site.name}})
        self.ask(site, "GET", "secret/data/alive")
        self.ask(site, "POST", "auth/token/create", {"policies": ["default"], "ttl": "1m"})
        if "transit/" in self.ask(site, "GET", "sys/mounts")["data"]:
            self.ask(site, "POST", "transit/encrypt/alive", {"plaintext": "eA=="})
        return True

    def start_all_again(self) -> None:
        """Kills all processes at once, ends etcd, and starts everything."""
        for site in self.sites:
            site.kill()
        for member in self.etcd.members:
            member.process.terminate()
            member.process.wait()
        for member in self.etcd.members:
            member.start()
        for site in self.sites:
            site.start()

    def audit_files(self) -> list[Path]:
        return list(self.folder.glob(f"*/data/**/{_AUDIT_LOG}*"))

    def close(self) -> None:
        for site in self.sites:
            if site.process is not None:
                site.stop()
        self.etcd.kill()
        self.network.close()

    def _reached_over_links(self, name: str, *options: str) -> Site:
        """Returns a site of one process, which others reach over links."""
        listen, direct = free_port(), free_port()
        links = [self.network.carry(listen), self.network.carry(direct)]
        return self._site(
            name,
            *options,
            f"--internal-listen=127.0.0.1:{listen}", f"--advertise=127.0.0.1:{links[0]}",
            f"--direct-listen=127.0.0.1:{direct}", f"--direct-advertise=127.0.0.1:{links[1]}",
            to_it=links,
        )  # fmt: skip

    def _site(self, name: str, *options: str, to_it: Sequence[int] = ()) -> Site:
        folder = self.folder / name
        folder.mkdir()
        to_etcd = [self.network.carry(member.port) for member in self.etcd.members]
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        arguments = [
            "server", f"--data-dir={folder / 'data'}", "--stream-drain-seconds=5",
            "--etcd-endpoints=" + ",".join(f"127.0.0.1:{link}" for link in to_etcd),
            f"--listen={addresses[0]}", f"--grpc-listen={addresses[1]}",
            f"--ready-file={folder / 'ready.json'}", *options,
        ]  # fmt: skip
        return Site(
            name, folder, arguments, f"https://{addresses[0]}", addresses[1], to_etcd, to_it
        )


@contextlib.contextmanager
def estate(folder: Path) -> Iterator[Estate]:
    """Starts an estate and ends it."""
    running = Estate(folder)
    try:
        running.start()
        yield running
    finally:
        running.close()

"""The servers that are measured: Strongroom and OpenBao, on loopback, without TLS, with a file audit device."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from strongroom_runtime.ports import free_port

BIN = Path(sys.executable).parent
_REPLICA_SECONDS = 5.0  # until the gateway has found those that were started


@dataclass
class Server:
    """A server under measurement.

    Args:
        name: of the product.
        address: of its HTTP API.
        token: a root token.
        pids: of its processes, by their names.
        log: where its processes write what they have to say.
    """

    name: str
    address: str
    token: str
    pids: dict[str, int]
    log: Path

    def call(self, method: str, path: str, body: object = None, *, seconds: float = 30) -> bytes:
        """Returns the body of an answer; raises urllib.error.HTTPError for a refusal."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.address + path, data, method=method)
        request.add_header("X-Vault-Token", self.token)
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return bytes(response.read())

    def cpu(self) -> dict[str, float]:
        """Returns the seconds of CPU that each of its processes has used, children included."""
        used: dict[str, float] = {}
        for name, pid in self.pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
                used[name] = sum(each.user + each.system for each in times)
        return used


@dataclass
class Strongroom(Server):
    """Strongroom in developer mode.

    Args:
        grpc_address: host and port of its gRPC listener.
        supervisor: the process that starts the others.
    """

    grpc_address: str
    supervisor: int


@dataclass
class OpenBao(Server):
    """OpenBao with raft storage.

    Args:
        config: its configuration file.
        key: the one unseal key.
        processes: those started so far; the last one runs.
    """

    config: Path
    key: str = field(default="", repr=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(self) -> None:
        """Starts a process, and unseals it where there is a key."""
        with self.log.open("ab") as log:
            command = [str(BIN / "bao"), "server", f"-config={self.config}"]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        self.pids = {"bao": self.processes[-1].pid}
        wait_for(lambda: bool(self.call("GET", "/v1/sys/seal-status")))
        if self.key:
            self.call("PUT", "/v1/sys/unseal", {"key": self.key})

    def kill(self) -> None:
        self.processes[-1].kill()
        self.processes[-1].wait()


def wait_for(check: Callable[[], bool], seconds: float = 60) -> None:
    """Returns once a check holds; one that raises OSError does not hold yet.

    Raises:
        TimeoutError: it did not in this time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if check():
                return
        time.sleep(0.1)
    raise TimeoutError("a server did not start")


@contextlib.contextmanager
def strongroom(folder: Path, extra: Sequence[str] = ()) -> Iterator[Strongroom]:
    """Runs Strongroom, with further flags, until the end of the block."""
    port, grpc_port, ready = free_port(), free_port(), folder / "ready.json"
    command = [
        str(BIN / "strongroom"), "dev", "--no-tls", "--root-token", "root",
        "--listen", f"127.0.0.1:{port}", "--grpc-listen", f"127.0.0.1:{grpc_port}",
        "--data-dir", str(folder / "data"), "--ready-file", str(ready), *extra,
    ]  # fmt: skip
    log = folder / "strongroom.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(ready.exists)
        yield Strongroom(
            "strongroom", f"http://127.0.0.1:{port}", "root", json.loads(ready.read_text())["pids"],
            log, f"127.0.0.1:{grpc_port}", process.pid,
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def transit_replicas(platform: Strongroom, folder: Path, count: int) -> Iterator[None]:
    """Runs more replicas of transit beside a platform, until the end of the block.

    Args:
        platform: whose clients they serve.
        folder: that it was started with.
        count: how many.
    """
    data = folder / "data"
    command = [
        str(BIN / "strongroom"), "server", "--target=transit", f"--pki-dir={data / 'pki'}",
        f"--etcd-endpoints=127.0.0.1:{(data / 'etcd' / 'port').read_text().strip()}",
        f"--etcd-pki-dir={data / 'pki'}",
    ]  # fmt: skip
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, count + 1):
            with (folder / f"transit-{number}.log").open("wb") as log:
                own = [f"--data-dir={folder / f'transit-{number}'}"]
                running.append(subprocess.Popen([*command, *own], stdout=log, stderr=log))
            platform.pids[f"transit-{number}"] = running[-1].pid
        time.sleep(_REPLICA_SECONDS)
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


@contextlib.contextmanager
def openbao(folder: Path) -> Iterator[OpenBao]:
    """Runs OpenBao, initialised, unsealed and active, until the end of the block."""
    port, data, config = free_port(), folder / "bao", folder / "bao.hcl"
    data.mkdir()
    cluster = f"127.0.0.1:{free_port()}"
    config.write_text(
        f"""
storage "raft" {{ path = "{data}" node_id = "n1" }}
listener "tcp" {{ address = "127.0.0.1:{port}" cluster_address = "{cluster}" tls_disable = true }}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://{cluster}"
audit "file" "file" {{ options {{ file_path = "{folder}/bao-audit.log" }} }}
"""
    )
    server = OpenBao("openbao", f"http://127.0.0.1:{port}", "", {}, folder / "bao.log", config)
    try:
        server.begin()
        asked = {"secret_shares": 1, "secret_threshold": 1}
        made = json.loads(server.call("PUT", "/v1/sys/init", asked))
        server.key, server.token = made["keys"][0], made["root_token"]
        server.call("PUT", "/v1/sys/unseal", {"key": server.key})
        wait_for(lambda: bool(server.call("GET", "/v1/sys/leader")) and _active(server))
        yield server
    finally:
        for process in server.processes:
            process.terminate()
            process.wait()


def _active(server: Server) -> bool:
    return b'"is_self":true' in server.call("GET", "/v1/sys/leader").replace(b" ", b"")

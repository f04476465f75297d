"""A real etcd with access control."""

from pathlib import Path

from tests.etcd_tools import run

from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.session import Login

ROOT_PASSWORD = "root-password-of-etcd"
_AS_ROOT = {"ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": ROOT_PASSWORD}


class GuardedEtcd:
    """An etcd on loopback; its first user is root.

    Args:
        folder: where its data are.
    """

    def __init__(self, folder: Path) -> None:
        self.server = EmbeddedEtcd(folder, login=Login("root", lambda: ROOT_PASSWORD))

    def ctl(self, *arguments: str, input: str = "") -> str:
        """Runs etcdctl as root."""
        return self._run(["etcdctl", *arguments], input, **_AS_ROOT)

    def shell(self, script: str) -> str:
        """Runs commands with etcdctl in them, as root."""
        return self._run(["sh", "-euc", script], **_AS_ROOT)

    def turn_on(self) -> None:
        """Makes root, and refuses who is nobody from now on."""
        self._run(["etcdctl", "user", "add", "root", "--interactive=false"], ROOT_PASSWORD)
        self._run(["etcdctl", "user", "grant-role", "root", "root"])
        self._run(["etcdctl", "auth", "enable"])

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

    def _run(self, command: list[str], input: str = "", **environment: str) -> str:
        return run(command, input, ETCDCTL_ENDPOINTS=self.server.config.endpoints[0], **environment)

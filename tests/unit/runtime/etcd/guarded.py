"""A real etcd with access control."""

from dataclasses import replace
from pathlib import Path

from tests.etcd_tools import reached, run

from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.session import Login
from strongroom_runtime.transport.certificates import Identity

ROOT_PASSWORD = "root-password-of-etcd"
_AS_ROOT = {"ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": ROOT_PASSWORD}


class GuardedEtcd:
    """An etcd on loopback; its first user is root.

    Args:
        folder: where its data are.
        identity: certificate files for mutual TLS; None for plain text.
    """

    def __init__(self, folder: Path, identity: Identity | None = None) -> None:
        self.server = EmbeddedEtcd(folder, identity, Login("root", lambda: ROOT_PASSWORD))

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
        return EtcdClient(replace(self.server.config, login=Login(user, lambda: password)))

    def _run(self, command: list[str], input: str = "", **environment: str) -> str:
        return run(command, input, **reached(self.server.config), **environment)

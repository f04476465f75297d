"""An outside etcd cluster: how a process reaches it, and what etcd has to allow the user of each service.

See `docs/decisions/0024-etcd-users.md`.
"""

import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from strongroom_cli.settings import ETCD_PASSWORD, SERVICES, VIEWED, ServerConfig
from strongroom_runtime.etcd.client import EtcdConfig
from strongroom_runtime.etcd.members import CLUSTER
from strongroom_runtime.etcd.session import Login
from strongroom_runtime.files import write_whole
from strongroom_runtime.transport.credentials import Identity


def etcd_config(config: ServerConfig) -> EtcdConfig:
    """Returns how a process reaches the cluster that its configuration names."""
    folder, identity = config.etcd_pki_dir, None
    if folder is not None:
        identity = Identity(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    return EtcdConfig(config.etcd_endpoints, identity, _login(config))


def _login(config: ServerConfig) -> Login | None:
    file = config.etcd_password_file
    if not config.etcd_user:
        return None
    if file is None:
        return Login(config.etcd_user, lambda: os.environ.get(ETCD_PASSWORD, ""))
    return Login(config.etcd_user, lambda: file.read_text().strip("\r\n"))


def rights(service: str) -> list[tuple[str, str]]:
    """Returns what a service needs: pairs of `read` or `readwrite` and the prefix of keys that it is for."""
    needed = [("readwrite", f"{service}/"), ("readwrite", CLUSTER.decode())]
    if service == "gateway":
        needed += [("read", f"{other}/") for other in VIEWED]
    return needed


def make_passwords(folder: Path, services: Sequence[str]) -> None:
    """Makes a file with a password for each service where it is missing, readable by its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for service in services:
        file = folder / service
        if not file.exists():
            write_whole(file, secrets.token_urlsafe(32).encode())


def commands(folder: Path, services: Sequence[str] = SERVICES) -> Iterator[str]:
    """Yields the commands for a shell that make a user and a role for each service; passwords stay in files."""
    for service in services:
        name = f"strongroom-{service}"
        yield f"etcdctl role add {name}"
        for kind, prefix in rights(service):
            yield f"etcdctl role grant-permission --prefix=true {name} {kind} {prefix}"
        yield f"etcdctl user add {name} --interactive=false < {shlex.quote(str(folder / service))}"
        yield f"etcdctl user grant-role {name} {name}"

"""An outside etcd cluster: how a process reaches it, and what etcd has to allow the user of each service.

See `docs/decisions/0024-etcd-users.md`.
"""

import asyncio
import logging
import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from strongroom_cli.settings import ETCD_PASSWORD, SERVICES, VIEWED, ServerConfig
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.members import ASKED, CLUSTER, written_by
from strongroom_runtime.etcd.refusal import Cause, RefusedError
from strongroom_runtime.etcd.releases import known_data_loss, known_loose_rights
from strongroom_runtime.etcd.server import release
from strongroom_runtime.etcd.session import Login
from strongroom_runtime.etcd.users import ROOT, User, Users
from strongroom_runtime.files import write_whole
from strongroom_runtime.transport.certificates import Identity

log = logging.getLogger(__name__)

_SETTINGS: dict[Cause, str] = {
    "endpoints": "etcd_endpoints",
    "identity": "etcd_pki_dir",
    "login": "etcd_user",
}
_ATTEMPTS = 6
_RETRY_SECONDS = 2.0


def etcd_config(config: ServerConfig) -> EtcdConfig:
    """Returns how a process reaches the cluster that its configuration names."""
    return reached(config.etcd_endpoints, config.etcd_pki_dir, _login(config))


def reached(
    endpoints: tuple[str, ...], folder: Path | None, login: Login | None = None
) -> EtcdConfig:
    """Returns how to reach a cluster with the certificates of a folder; None for plain text."""
    identity = None
    if folder is not None:
        identity = Identity(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    return EtcdConfig(endpoints, identity, login)


def refusal(error: RefusedError) -> str:
    """Returns why etcd takes no process that is configured so, with the setting that is to be changed."""
    return f"{_SETTINGS[error.cause]}: {error.message}"


def _login(config: ServerConfig) -> Login | None:
    file = config.etcd_password_file
    if not config.etcd_user:
        return None
    if file is None:
        return Login(config.etcd_user, lambda: os.environ.get(ETCD_PASSWORD, ""))
    return Login(config.etcd_user, lambda: _password(file))


def rights(service: str) -> list[tuple[str, str]]:
    """Returns what a service needs: pairs of `read` or `readwrite` and the prefix of keys that it is for."""
    # What may be written comes first: those that run shall not lack it while rights are brought up to date.
    needed = [
        ("readwrite", f"{service}/"),
        ("readwrite", written_by(service).decode()),
        ("readwrite", ASKED.decode()),
        ("read", CLUSTER.decode()),
    ]
    if service == "gateway":
        needed += [("read", f"{other}/") for other in VIEWED]
    return needed


def user_of(service: str) -> str:
    """Returns the name of a service's user, and of its role."""
    return f"strongroom-{service}"


def make_passwords(folder: Path, services: Sequence[str]) -> None:
    """Makes a file with a password for each service and root where it is missing, readable by its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (*services, ROOT):
        file = folder / name
        if not file.exists():
            write_whole(file, secrets.token_urlsafe(32).encode())


def commands(folder: Path, services: Sequence[str] = SERVICES) -> Iterator[str]:
    """Yields the commands for a shell that make a user and a role for each service; passwords stay in files."""
    for service in services:
        name = user_of(service)
        yield f"etcdctl role add {name}"
        for kind, prefix in rights(service):
            yield f"etcdctl role grant-permission --prefix=true {name} {kind} {prefix}"
        yield f"etcdctl user add {name} --interactive=false < {shlex.quote(str(folder / service))}"
        yield f"etcdctl user grant-role {name} {name}"


async def apply(
    folder: Path,
    config: EtcdConfig,
    services: Sequence[str] = SERVICES,
    *,
    keep_rights: bool = False,
) -> list[str]:
    """Makes the users and their rights in a cluster, turns its access control on, and returns what was changed.

    What is known to be wrong with the cluster's release is logged. With `keep_rights` none is taken away.

    Raises:
        ServiceError: UNAVAILABLE; etcd does not answer, or root has another password than its file.
            INVALID; a password is empty.
        OSError: a file with a password cannot be read.
    """
    passwords = {name: _password(folder / name) for name in (ROOT, *services)}
    for name, password in passwords.items():
        if not password:  # etcd would take it
            raise ServiceError(Kind.INVALID, f"{folder / name}: is empty")
    root = passwords[ROOT]
    users = [User(user_of(each), passwords[each], rights(each)) for each in services]
    as_root = replace(config, login=Login(ROOT, lambda: root))
    changes: list[str] = []
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _apply(as_root, root, users, changes, keep_rights=keep_rights)
        except ServiceError as error:
            # Members may be starting, or choosing a leader. What was done is found done by the next attempt.
            if attempt == _ATTEMPTS:
                raise
            log.info("etcd: once more", extra={"reason": error.message})
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            break
    return changes


async def _apply(
    config: EtcdConfig,
    root: str,
    users: Sequence[User],
    changes: list[str],
    *,
    keep_rights: bool,
) -> None:
    version = await release(config)
    for warning in (known_data_loss(version), known_loose_rights(version)):
        if warning:
            log.warning(warning)
    client = EtcdClient(config)
    try:
        await Users(client, changes).apply(root, users, keep_rights=keep_rights)
    finally:
        await client.close()


def _password(file: Path) -> str:
    return file.read_text().strip("\r\n")

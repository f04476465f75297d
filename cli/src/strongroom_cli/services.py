"""Builds each service with what the operator chose for it. A process loads only the code of those that run in it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom_cli.settings import DBCREDS, ServerConfig, of_service
from strongroom_runtime.service import Host, Service
from strongroom_runtime.version import shown

if TYPE_CHECKING:
    from strongroom_audit.service import AuditService
    from strongroom_seal.service import SealService


def seal(host: Host, config: ServerConfig) -> "SealService":
    """Builds the seal."""
    from strongroom_seal.config import Config
    from strongroom_seal.service import build

    return build(
        host,
        Config(
            static_key_file=config.static_key_file,
            cluster_name=config.cluster_name,
            version=shown(config.vault_version),
        ),
    )


def audit(host: Host, config: ServerConfig) -> "AuditService":
    """Builds the audit service, and makes its folder where it is missing."""
    from strongroom_audit.config import Config
    from strongroom_audit.service import build

    config.audit_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = tuple(Path(file) for file in config.audit_files)
    return build(host, Config(folder=config.audit_folder, files=files))


def _kv(host: Host, config: ServerConfig) -> Service:
    from strongroom_kv.service import build

    return build(host)


def _transit(host: Host, config: ServerConfig) -> Service:
    from strongroom_transit.service import build

    return build(host)


def _dbcreds(host: Host, config: ServerConfig) -> Service:
    from strongroom_dbcreds.config import Config
    from strongroom_dbcreds.service import build

    return build(host, Config(**of_service(DBCREDS, config)))


def _auth(host: Host, config: ServerConfig) -> Service:
    from strongroom_auth.service import build

    return build(host)


# The others that have nothing to themselves in a process.
BUILD: dict[str, Callable[[Host, ServerConfig], Service]] = {
    "kv": _kv,
    "transit": _transit,
    "dbcreds": _dbcreds,
    "auth": _auth,
}

"""What an operator can set for a server process."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom_runtime.etcd.server import QUOTA_MIB
from strongroom_runtime.transport.leaving import STREAM_SECONDS
from strongroom_runtime.version import VAULT_VERSION

SERVICES = ("seal", "audit", "kv", "transit", "dbcreds", "auth", "gateway")
# Services whose replicas are taken as they come, beside those that are named or run in the same process.
SCALED = ("transit",)
# Whose changes the gateway follows, to drop what it keeps of their answers.
VIEWED = ("auth", "audit")
DBCREDS = "dbcreds_"  # how the settings of that service begin
ETCD_PASSWORD = "STRONGROOM_ETCD_PASSWORD"  # noqa: S105 (where it is, not what it is)
# Beyond the larger, etcd's authors advise against it: it starts slowly, and its members catch up slowly.
SMALLEST_QUOTA_MIB, LARGEST_QUOTA_MIB = 64, 8192
# Where others reach a process.
_VAULT_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}", re.ASCII)
_REACHED = ("advertise", "direct_advertise")
# Where somebody looks for it who is told nothing else: a port that the system picks would be known to nobody.
_KNOWN = ("listen", "grpc_listen", "health_listen")
# What several processes on one machine cannot share.
_OF_ONE_PROCESS = (*_REACHED, "direct_listen", "health_listen")
_ADDRESSES = ("listen", "grpc_listen", "internal_listen", *_OF_ONE_PROCESS)
# Whom a service calls; the gateway calls all.
_CALLS = {"auth": ("kv", "dbcreds"), "dbcreds": ("auth",), "seal": ("auth",)}


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that a server process is told.

    Args:
        target: `all`, or names of services, separated by commas.
        workers: how many processes serve clients.
        split: each service is a process of its own.
        data_dir: state of this machine: the embedded etcd, keys, certificates, audit files.
        listen: host:port for HTTP; a port from 1.
        grpc_listen: host:port for gRPC; a port from 1.
        internal_listen: host:port for other processes; port 0 for any.
        advertise: host:port by which other processes reach this one; empty for where it listens, and where that is
            all addresses, for the one from which it reaches etcd.
        direct_listen: host:port for connections beside the streams of other processes; empty for any free port where
            internal_listen is.
        direct_advertise: host:port by which other processes reach that; empty for the host of advertise and the port
            of direct_listen.
        health_listen: host:port where `/live` and `/ready` tell over plain HTTP how the one process is; empty for
            nowhere.
        etcd_quota_mib: how large the file of the embedded etcd may become.
        etcd_endpoints: an outside cluster; empty for the embedded one.
        etcd_pki_dir: ca.pem, client.pem and client.key for the outside cluster; empty for plain text.
        etcd_user: the user of the outside cluster; empty where it has no access control.
        etcd_password_file: has the user's password; empty where STRONGROOM_ETCD_PASSWORD has it. The password itself
            is no setting: these are passed on command lines and shown to operators.
        pki_dir: the internal CA and the services' certificates; empty for one below data_dir, made when missing.
        trust_domain: of the internal certificates.
        services: where services of other processes are, as name=host:port; those that are not named are found
            through etcd.
        tls: whether clients are served over TLS.
        tls_cert: certificate for clients; empty for one of the internal CA.
        tls_key: its key.
        seal: static or shamir.
        seal_key_file: the key of a static seal; empty for one below data_dir, made when missing.
        cluster_name: shown to clients.
        vault_version: the version of Vault that clients are told, with this software's behind a plus sign: some ask
            for no more than they believe it has. Empty for this software's alone.
        audit_dir: below which audit files may be; empty for one below data_dir.
        audit_files: further audit files that may be named over the API.
        member: of a process that a supervisor started: how the names of its records in etcd begin.
        log_level: debug, info, warning or error.
        stream_drain_seconds: how long a process that was told to end keeps streams both ways that are open in it.
            Whoever ends it must leave it that time and half a minute more.
        dbcreds_creation_seconds: how long making a database user may take; half of it is for the statements.
        dbcreds_aftercheck_seconds: after which further time a user whose making was given up is removed once more.
        dbcreds_claim_seconds: how long, beyond the attempt's own time, one replica has a lease to itself that it
            revokes.
        dbcreds_revocation_seconds: how long one attempt to remove a user may take, where its role does not say.
        dbcreds_first_retry_seconds: the wait after a first failure to remove a user or change a password; it
            doubles with each further one.
        dbcreds_longest_retry_seconds: the longest such wait, where the role does not say.
        dbcreds_irrevocable_seconds: after how long of failing a lease is called irrevocable, where its role does
            not say.
        dbcreds_probe_seconds: how soon a database that was away is asked whether it is back; the wait doubles each
            time.
        dbcreds_longest_probe_seconds: the longest wait between two such questions.
        dbcreds_expiry_seconds: how often leases whose time is over are looked for.
        dbcreds_parallel: how many leases, and how many passwords, of one database a replica works on at a time.
        dbcreds_rotation_seconds: how often passwords that are to be changed are looked for.
        dbcreds_change_seconds: how long one attempt to change a password may take.
        dbcreds_change_claim_seconds: how long, beyond that, one replica has the record to itself.
    """

    target: str = "all"
    workers: int = 1
    split: bool = False
    data_dir: Path = Path("strongroom-data")
    listen: str = "127.0.0.1:8200"
    grpc_listen: str = "127.0.0.1:8202"
    internal_listen: str = "127.0.0.1:0"
    advertise: str = ""
    direct_listen: str = ""
    direct_advertise: str = ""
    health_listen: str = ""
    etcd_quota_mib: int = QUOTA_MIB
    etcd_endpoints: tuple[str, ...] = ()
    etcd_pki_dir: Path | None = None
    etcd_user: str = ""
    etcd_password_file: Path | None = None
    pki_dir: Path | None = None
    trust_domain: str = "strongroom.internal"
    services: tuple[str, ...] = ()
    tls: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    seal: str = "static"
    seal_key_file: Path | None = None
    cluster_name: str = "strongroom"
    vault_version: str = VAULT_VERSION
    audit_dir: Path | None = None
    audit_files: tuple[str, ...] = ()
    member: str = ""
    log_level: str = "info"
    stream_drain_seconds: float = STREAM_SECONDS
    dbcreds_creation_seconds: float = 60.0
    dbcreds_aftercheck_seconds: float = 600.0
    dbcreds_claim_seconds: float = 15.0
    dbcreds_revocation_seconds: int = 30
    dbcreds_first_retry_seconds: float = 1.0
    dbcreds_longest_retry_seconds: int = 300
    dbcreds_irrevocable_seconds: int = 86400
    dbcreds_probe_seconds: float = 2.0
    dbcreds_longest_probe_seconds: float = 30.0
    dbcreds_expiry_seconds: float = 1.0
    dbcreds_parallel: int = 16
    dbcreds_rotation_seconds: float = 1.0
    dbcreds_change_seconds: float = 10.0
    dbcreds_change_claim_seconds: float = 5.0

    @property
    def targets(self) -> tuple[str, ...]:
        """The services of this process, in the order in which they start."""
        if self.target == "all":
            return SERVICES
        named = [name.strip() for name in self.target.split(",") if name.strip()]
        return tuple(name for name in SERVICES if name in named)

    @property
    def remote(self) -> dict[str, list[str]]:
        """Where services of other processes are."""
        found: dict[str, list[str]] = {}
        for each in self.services:
            name, _, address = each.partition("=")
            found.setdefault(name, []).append(address)
        return found

    @property
    def certificates(self) -> Path:
        """The folder of the internal certificates."""
        return self.pki_dir or self.data_dir / "pki"

    @property
    def audit_folder(self) -> Path:
        """The folder of the audit files."""
        return self.audit_dir or self.data_dir / "audit"

    @property
    def static_key_file(self) -> Path | None:
        """The key of a static seal."""
        if self.seal != "static":
            return None
        return self.seal_key_file or self.data_dir / "seal.key"


def _named(prefix: str, config: ServerConfig) -> list[str]:
    """Returns the settings whose names begin with a prefix."""
    return [field.name for field in dataclasses.fields(config) if field.name.startswith(prefix)]


def of_service(prefix: str, config: ServerConfig) -> dict[str, Any]:
    """Returns the settings of one service, by the names that it knows them by."""
    return {name.removeprefix(prefix): getattr(config, name) for name in _named(prefix, config)}


def calls_of(service: str) -> tuple[str, ...]:
    """Returns the services that a service calls."""
    if service == "gateway":
        return tuple(name for name in SERVICES if name != "gateway")
    return _CALLS.get(service, ())


def check(config: ServerConfig, environment: Mapping[str, str]) -> list[str]:
    """Returns what is wrong with a configuration, each naming the setting and what it takes."""
    wrong = []
    names = [name.strip() for name in config.target.split(",")]
    if config.target != "all" and not all(name in SERVICES for name in names):
        wrong.append(f"target: takes all, or some of {', '.join(SERVICES)}")
    if config.workers < 1:
        wrong.append("workers: takes a number from 1")
    if config.seal not in ("static", "shamir"):
        wrong.append("seal: takes static or shamir")
    if config.log_level not in ("debug", "info", "warning", "error"):
        wrong.append("log_level: takes debug, info, warning or error")
    if config.vault_version and not _VAULT_VERSION.fullmatch(config.vault_version):
        wrong.append("vault_version: takes three numbers such as 1.19.0, or nothing")
    if not 0 <= config.stream_drain_seconds < float("inf"):
        wrong.append("stream_drain_seconds: takes a number from 0")
    wrong += [
        f"{name}: takes a number above 0"
        for name in _named(DBCREDS, config)
        if not 0 < getattr(config, name) < float("inf")
    ]
    if not SMALLEST_QUOTA_MIB <= config.etcd_quota_mib <= LARGEST_QUOTA_MIB:
        wrong.append(
            f"etcd_quota_mib: takes a number from {SMALLEST_QUOTA_MIB} to {LARGEST_QUOTA_MIB}"
        )
    wrong += _check_addresses(config)
    wrong += _check_etcd_user(config, environment)
    if (config.tls_cert is None) != (config.tls_key is None):
        wrong.append("tls_cert and tls_key: both or none must be given")
    for each in config.services:
        name, separator, address = each.partition("=")
        if name not in SERVICES or not separator or ":" not in address:
            wrong.append("services: takes name=host:port, separated by commas")
    if not config.tls and not is_loopback(config.listen):
        wrong.append("tls: can be turned off only where listen is a loopback address")
    if not config.tls and not is_loopback(config.grpc_listen):
        wrong.append("tls: can be turned off only where grpc_listen is a loopback address")
    called = {name for target in config.targets for name in calls_of(target)}
    missing = {"seal", *called} - set(config.targets) - set(config.remote)
    if missing and not wrong and not config.etcd_endpoints:
        wrong.append(
            f"services: says nothing of {', '.join(sorted(missing))}, which this process calls;"
            " they can be found by themselves where etcd_endpoints names the cluster that they run on"
        )
    return wrong


def _check_addresses(config: ServerConfig) -> list[str]:
    wrong = []
    for name in _ADDRESSES:
        value = getattr(config, name)
        host, _, port = value.rpartition(":")
        if not value and name in _OF_ONE_PROCESS:
            continue
        if not host or not port.isdigit() or int(port) > 65_535:
            wrong.append(f"{name}: takes host:port")
        elif name in _KNOWN and int(port) == 0:
            wrong.append(f"{name}: takes host:port with a port from 1: clients have to know it")
        elif name in _REACHED and (is_everywhere(value) or int(port) == 0):
            wrong.append(
                f"{name}: takes host:port by which others reach this process, not all addresses or port 0"
            )
    if config.split or config.workers > 1:
        wrong += [
            f"{name}: is for one process alone, without split and workers"
            for name in _OF_ONE_PROCESS
            if getattr(config, name)
        ]
    if config.direct_advertise and config.direct_listen.rpartition(":")[2] in ("", "0"):
        wrong.append("direct_advertise: is for a port that direct_listen names")
    return wrong


def _check_etcd_user(config: ServerConfig, environment: Mapping[str, str]) -> list[str]:
    if not config.etcd_user:
        file = config.etcd_password_file
        return [] if file is None else ["etcd_password_file: is for etcd_user, which is not given"]
    if not config.etcd_endpoints:
        return ["etcd_user: is for an outside cluster, which etcd_endpoints names"]
    if config.etcd_password_file is None and not environment.get(ETCD_PASSWORD):
        return [f"etcd_user: needs etcd_password_file, or {ETCD_PASSWORD} in the environment"]
    return []


def sanitized(config: ServerConfig) -> dict[str, object]:
    """Returns a configuration as operators may read it over the API: names of files, never what is in them."""
    settings = {
        field.name: str(value) if isinstance(value, Path) else value
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }
    listener = {"address": config.listen, "tls_disable": not config.tls}
    return {
        **settings,
        "api_addr": public_url(config),
        "listeners": [{"type": "tcp", "config": listener}],
        "seals": [{"type": config.seal, "disabled": False}],
        "storage": {"type": "etcd"},
    }


def is_loopback(address: str) -> bool:
    """Returns whether HOST:PORT is on this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def reachable(listen: str) -> str:
    """Returns where a client on this machine finds what listens on HOST:PORT, which may be all addresses at once."""
    port = listen.rpartition(":")[2]
    return f"127.0.0.1:{port}" if is_everywhere(listen) else listen


def is_everywhere(address: str) -> bool:
    """Returns whether HOST:PORT is all addresses of this machine."""
    return address.rpartition(":")[0] in ("", "0.0.0.0", "[::]")  # noqa: S104 - looked for, not listened on


def public_url(config: ServerConfig) -> str:
    """Returns where a client on this machine finds the HTTP API."""
    return f"{'https' if config.tls else 'http'}://{reachable(config.listen)}"

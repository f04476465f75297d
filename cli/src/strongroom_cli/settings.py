"""What an operator can set for a server process."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from strongroom_runtime import otlp
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
_VAULT_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}", re.ASCII)
# Where others reach a process.
_REACHED = ("advertise", "direct_advertise")
# Where somebody looks for it who is told nothing else: a port that the system picks would be known to nobody.
_KNOWN = ("listen", "grpc_listen", "health_listen")
# What several processes on one machine cannot share.
_OF_ONE_PROCESS = (*_REACHED, "direct_listen", "health_listen")
_ADDRESSES = ("listen", "grpc_listen", "internal_listen", *_OF_ONE_PROCESS)
# Whom a service calls; the gateway calls all.
_CALLS = {"auth": ("kv", "dbcreds"), "dbcreds": ("auth",), "seal": ("auth",)}
_ADDRESS = "HOST:PORT"

_T = TypeVar("_T")


def _setting(default: _T, text: str, takes: str = "") -> _T:
    """Returns a field with what is said of it to operators, and what it takes where its type does not tell."""
    return field(default=default, metadata={"text": text, "takes": takes})


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that a server process is told, by flags, `STRONGROOM_<NAME>` or a file."""

    target: str = _setting("all", "all, or names of services, separated by commas.", "NAMES")
    workers: int = _setting(1, "How many processes serve clients.")
    split: bool = _setting(False, "Each service is a process of its own.")
    data_dir: Path = _setting(
        Path("strongroom-data"),
        "State of this machine: the embedded etcd, keys, certificates, audit files.",
    )
    listen: str = _setting("127.0.0.1:8200", "Where HTTP is served; a port from 1.", _ADDRESS)
    grpc_listen: str = _setting("127.0.0.1:8202", "Where gRPC is served; a port from 1.", _ADDRESS)
    internal_listen: str = _setting(
        "127.0.0.1:0", "Where other processes are served; port 0 for any.", _ADDRESS
    )
    advertise: str = _setting(
        "",
        "By which other processes reach this one. Else where it listens, and where that is all addresses, the one"
        " from which it reaches etcd.",
        _ADDRESS,
    )
    direct_listen: str = _setting(
        "",
        "For connections beside the gRPC streams of other processes. Else any free port where internal-listen is.",
        _ADDRESS,
    )
    direct_advertise: str = _setting(
        "",
        "By which other processes reach that. Else the host of advertise and the port of direct-listen.",
        _ADDRESS,
    )
    health_listen: str = _setting(
        "",
        "Where /live and /ready tell over plain HTTP how the one process is. Else nowhere.",
        _ADDRESS,
    )
    etcd_quota_mib: int = _setting(
        4096,
        f"How large the file of the embedded etcd may become, from {SMALLEST_QUOTA_MIB} to {LARGEST_QUOTA_MIB}.",
        "MIB",
    )
    etcd_endpoints: tuple[str, ...] = _setting(
        (), "An outside etcd cluster. Else one that is started here.", f"{_ADDRESS},…"
    )
    etcd_pki_dir: Path | None = _setting(
        None, "Has ca.pem, client.pem and client.key for it. Else it is spoken to in plain text."
    )
    etcd_user: str = _setting("", "Its user for this process, where it has access control.", "NAME")
    # The password itself is no setting: these are passed on command lines and shown to operators.
    etcd_password_file: Path | None = _setting(
        None, f"Has the user's password. Else {ETCD_PASSWORD} in the environment is it."
    )
    pki_dir: Path | None = _setting(
        None,
        "Has the internal CA and the services' certificates. Else a folder in data-dir, made when missing.",
    )
    trust_domain: str = _setting("strongroom.internal", "Of the internal certificates.", "DOMAIN")
    services: tuple[str, ...] = _setting(
        (),
        "Where services of other processes are. Those that are not named are found through etcd.",
        f"NAME={_ADDRESS},…",
    )
    tls: bool = _setting(True, "Whether clients are served over TLS.")
    tls_cert: Path | None = _setting(None, "Certificate for clients. Else one of the internal CA.")
    tls_key: Path | None = _setting(None, "Its key.")
    seal: str = _setting("static", "How the platform is unsealed.", "[static|shamir]")
    seal_key_file: Path | None = _setting(
        None, "The key of a static seal. Else a file in data-dir, made when missing."
    )
    cluster_name: str = _setting("strongroom", "Shown to clients.", "NAME")
    # Some clients ask for no more than they believe that version has.
    vault_version: str = _setting(
        VAULT_VERSION,
        "The version of Vault that clients are told, with this software's behind a plus sign; empty for this"
        " software's alone.",
        "VERSION",
    )
    audit_dir: Path | None = _setting(
        None, "Below which audit files may be. Else a folder in data-dir."
    )
    audit_files: tuple[str, ...] = _setting(
        (), "Further audit files that may be named over the API.", "PATH,…"
    )
    member: str = _setting(
        "",
        "How the names of this process's records in etcd begin; a supervisor chooses it.",
        "NAME",
    )
    log_level: str = _setting("info", "The least that is logged.", "[debug|info|warning|error]")
    stream_drain_seconds: float = _setting(
        300.0,
        "How long a process that was told to end keeps streams both ways that are open in it. Whoever ends it must"
        " leave it that time and half a minute more.",
    )
    dbcreds_creation_seconds: float = _setting(
        60.0, "How long making a database user may take; half of it is for the statements."
    )
    dbcreds_aftercheck_seconds: float = _setting(
        600.0, "After which further time a user whose making was given up is removed once more."
    )
    dbcreds_claim_seconds: float = _setting(
        15.0,
        "How long, beyond the attempt's own time, one replica has a lease to itself that it revokes.",
    )
    dbcreds_revocation_seconds: int = _setting(
        30, "How long one attempt to remove a user may take; roles may say otherwise."
    )
    dbcreds_first_retry_seconds: float = _setting(
        1.0,
        "The wait after a first failure to remove a user or change a password; it doubles with each further one.",
    )
    dbcreds_longest_retry_seconds: int = _setting(
        300, "The longest such wait; roles may say otherwise."
    )
    dbcreds_irrevocable_seconds: int = _setting(
        86400,
        "After how long of failing a lease is called irrevocable; roles may say otherwise.",
    )
    dbcreds_probe_seconds: float = _setting(
        2.0,
        "How soon a database that was away is asked whether it is back; the wait doubles each time.",
    )
    dbcreds_longest_probe_seconds: float = _setting(
        30.0, "The longest wait between two such questions."
    )
    dbcreds_expiry_seconds: float = _setting(
        1.0, "How often leases whose time is over are looked for."
    )
    dbcreds_parallel: int = _setting(
        16, "How many leases, and how many passwords, of one database are worked on at a time."
    )
    dbcreds_rotation_seconds: float = _setting(
        1.0, "How often passwords that are to be changed are looked for."
    )
    dbcreds_change_seconds: float = _setting(
        10.0, "How long one attempt to change a password may take."
    )
    dbcreds_change_claim_seconds: float = _setting(
        5.0, "How long, beyond that, one replica has the password to itself."
    )

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
    wrong += otlp.wrong(environment)
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

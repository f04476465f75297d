"""`strongroom server` and `strongroom dev`: a platform on this machine, from its first start to its end."""

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import grpc.aio

from strongroom_cli import spawning
from strongroom_cli.bootstrap import Platform, Secrets
from strongroom_cli.outside_etcd import refusal
from strongroom_cli.places import (
    check_folder,
    check_places,
    check_ready_file,
    explained,
    write_ready_file,
)
from strongroom_cli.settings import ServerConfig, public_url, reachable
from strongroom_cli.supervisor import Supervisor, public_ca
from strongroom_runtime import logs
from strongroom_runtime.config import ConfigError
from strongroom_runtime.etcd.refusal import RefusedError
from strongroom_runtime.tasks import EndedError, unless

log = logging.getLogger(__name__)

_AUDIT_FILE = "audit.log"  # in the folder of audit files, wherever that is moved


@dataclass(frozen=True, slots=True)
class Start:
    """What to do once the servers run.

    Args:
        initialise: make the keys where there are none.
        furnish: mount secret/ and enable an audit file.
        root_token: a text to make the root token; empty for the one that is made.
        ready_file: where to write how to reach the platform; None for nowhere.
        development: say so.
    """

    initialise: bool
    furnish: bool
    root_token: str = ""
    ready_file: Path | None = None
    development: bool = False


def run(config: ServerConfig, start: Start) -> int:
    """Runs a platform until a signal ends it; returns the exit status."""
    logs.configure("supervisor", config.log_level)
    try:
        check_folder("data_dir", config.data_dir)
        check_places(config)
        if start.ready_file is not None:
            check_ready_file(start.ready_file)
        spawner = spawning.prepare()
    except ConfigError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(explained(error, config))
    return asyncio.run(_run(config, start, spawner))


async def _run(config: ServerConfig, start: Start, spawner: spawning.Spawner) -> int:
    supervisor = Supervisor(config, spawner)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, supervisor, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: supervisor.signal(signal.SIGHUP))
    try:
        await supervisor.start()
        with contextlib.suppress(EndedError):
            await supervisor.reach_etcd(stop)
            if "gateway" in config.targets:
                await unless(stop, _prepare(config, start, supervisor))
        await stop.wait()
    except RefusedError as error:
        return _refuse(refusal(error))
    except OSError as error:
        return _refuse(explained(error, config) or "it took too long")
    except (RuntimeError, ValueError, ConfigError) as error:
        return _refuse(str(error))
    finally:
        await supervisor.stop()
    return 0


def _refuse(reason: str) -> int:
    """Says why nothing was started, or why it is ended; returns the exit status."""
    sys.stderr.write(f"strongroom: cannot start: {reason}\n")
    return 1


def _end(supervisor: Supervisor, stop: asyncio.Event) -> None:
    if stop.is_set():
        supervisor.hurry()
    stop.set()


async def _prepare(config: ServerConfig, start: Start, supervisor: Supervisor) -> None:
    ca = public_ca(config)
    if config.tls and ca is None:
        return  # certificates from elsewhere: this machine may not trust them
    platform = Platform(reachable(config.grpc_listen), ca)
    try:
        status = await platform.status()
        secrets = None
        if not status.initialized and start.initialise:
            secrets = await platform.initialise(1, 1)
            if config.seal == "shamir":
                await platform.unseal(secrets.shares)
            secrets = await _furnished(platform, start, secrets)
        opens = secrets is not None or (status.initialized and config.seal == "static")
        if opens and not await platform.serving():
            log.warning("some services do not take calls yet")
        _announce(config, start, secrets, ca, initialised=status.initialized)
        if start.ready_file is not None:
            ready = _ready(config, supervisor, secrets, ca)
            write_ready_file(start.ready_file, json.dumps(ready).encode())
    finally:
        await platform.close()


async def _furnished(platform: Platform, start: Start, secrets: Secrets) -> Secrets:
    """Sets up what a new platform has; returns its secrets, which are shown whatever becomes of that."""
    try:
        await platform.usable(secrets.root_token)
        if start.furnish:
            await platform.furnish(secrets.root_token, _AUDIT_FILE)
        if start.root_token:
            await platform.replace_root(secrets.root_token, start.root_token)
            return Secrets(start.root_token, secrets.shares)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else "it took too long"
        log.error(
            "the new platform is not set up whole: secret/, the audit file or the chosen root token is missing",
            extra={"reason": reason},
        )
    return secrets


def _ready(
    config: ServerConfig, supervisor: Supervisor, secrets: Secrets | None, ca: Path | None
) -> dict[str, object]:
    return {
        "address": public_url(config),
        "grpc_address": reachable(config.grpc_listen),
        "root_token": secrets.root_token if secrets else "",
        "unseal_keys": list(secrets.shares) if secrets else [],
        "ca_cert": str(ca.resolve()) if ca else None,
        "audit_log": str((config.audit_folder / _AUDIT_FILE).resolve()),
        "pids": supervisor.pids,
    }


def _announce(
    config: ServerConfig,
    start: Start,
    secrets: Secrets | None,
    ca: Path | None,
    *,
    initialised: bool,
) -> None:
    lines = [
        "",
        "Strongroom is running.",
        "",
        f"  export BAO_ADDR={public_url(config)}",
    ]
    if ca is not None:
        lines.append(f"  export BAO_CACERT={shlex.quote(str(ca.resolve()))}")
    if secrets is not None:
        lines += [f"  export BAO_TOKEN={shlex.quote(secrets.root_token)}", ""]
        kind = "Unseal" if config.seal == "shamir" else "Recovery"
        lines += [f"  {kind} key {n}: {share}" for n, share in enumerate(secrets.shares, 1)]
        if not start.development:
            lines += [
                "",
                "Root token and keys are shown this once: keep them. (The vault command line reads the same",
                "variables with VAULT_ in place of BAO_.)",
                "",
                f"The seal opens by itself with {config.static_key_file}: whoever has that file and the data has",
                "everything. For production see docs/deployment.md: shares in place of that file, a cluster of etcd,",
                "each service a container of its own, and certificates of your own.",
            ]
    elif not initialised:
        lines += ["", "There are no keys yet: run `bao operator init`, then `bao operator unseal`."]
    if start.development:
        lines += [
            "",
            "This is for development: everything is lost when it ends, unless --data-dir is given.",
        ]
    cores = os.cpu_count() or 1
    if cores > 2 and config.workers == 1:
        lines += [
            "",
            f"One process serves clients, with little more than one of {cores} cores.",
            f"--workers={cores // 2} uses the others.",
        ]
    click.echo("\n".join([*lines, ""]))

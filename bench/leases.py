"""What many leases cost at a restart, Strongroom beside OpenBao: time until the first answer, memory, time to revoke.

The leases are made through the API of each, by a database role whose statements are SELECT 1, so that the servers are
measured and not the database; the database is the PostgreSQL of the tests. The process with the leases is then
killed, started again, and asked until it answers; once without leases and once with them. Needs wrk.

Usage: python bench/leases.py [--leases N] [--only strongroom,openbao] [--restarts N]
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import peers
from bench.peers import Server, wait_for
from tests.integration.databases import ADMIN, PASSWORD, Postgres, postgres

_CHUNK_SECONDS = 10


@dataclass
class Subject:
    """A server that can be killed and started again."""

    server: Server
    restart: Callable[[], float]  # returns the seconds until it answered
    memory: Callable[[], float]  # MiB of the process with the leases


@contextlib.contextmanager
def strongroom(folder: Path) -> Iterator[Subject]:
    with peers.strongroom(folder) as server:

        def pid() -> int:
            for child in psutil.Process(server.supervisor).children():
                with contextlib.suppress(psutil.Error):
                    if "serve-one" in child.cmdline():
                        return child.pid
            raise OSError("not started yet")

        def restart() -> float:
            victim = pid()
            started = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: pid() != victim)
            wait_for(lambda: answers(server))
            return time.monotonic() - started

        yield Subject(server, restart, lambda: resident(pid()))


@contextlib.contextmanager
def openbao(folder: Path) -> Iterator[Subject]:
    with peers.openbao(folder) as server:

        def restart() -> float:
            server.kill()
            started = time.monotonic()
            server.begin()
            wait_for(lambda: answers(server), 600)
            return time.monotonic() - started

        yield Subject(server, restart, lambda: resident(server.pids["bao"]))


def answers(server: Server) -> bool:
    """Returns whether a role of the engine can be read."""
    try:
        return bool(server.call("GET", "/v1/database/roles/app"))
    except urllib.error.HTTPError:
        return False


def resident(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


def furnish(server: Server, database: Postgres) -> None:
    server.call("POST", "/v1/sys/mounts/database", {"type": "database"})
    connection = {
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": ADMIN,
        "connection_url": database.url + "?sslmode=disable", "password": PASSWORD,
        "max_open_connections": 8,
    }  # fmt: skip
    server.call("POST", "/v1/database/config/pg", connection)
    role = {
        "db_name": "pg", "default_ttl": "700h", "max_ttl": "700h",
        "creation_statements": "SELECT 1", "revocation_statements": "SELECT 1",
    }  # fmt: skip
    server.call("POST", "/v1/database/roles/app", role)


def fill(server: Server, folder: Path, wanted: int) -> tuple[int, float]:
    """Makes leases until there are at least so many; returns how many, and how many a second."""
    script = folder / "creds.lua"
    script.write_text(f'wrk.method = "GET"\nwrk.headers["X-Vault-Token"] = "{server.token}"\n')
    made, spent = 0, 0.0
    while made < wanted:
        command = ["wrk", "-t1", "-c32", f"-d{_CHUNK_SECONDS}s", "--timeout", "30s"]
        output = subprocess.run(
            [*command, "-s", str(script), f"{server.address}/v1/database/creds/app"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        if "Non-2xx" in output:
            raise RuntimeError(f"{server.name}: {output}")
        made += int(output.split(" requests in")[0].split()[-1])
        spent += _CHUNK_SECONDS
    return made, made / spent


def measure(subject: Subject, restarts: int) -> str:
    seconds = [subject.restart() for _ in range(restarts)]
    time.sleep(5)  # what is loaded in the background belongs to it
    return f"{statistics.median(seconds):10.2f}{subject.memory():12.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--only", default="strongroom,openbao")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench: needs wrk on PATH (Debian package wrk)")
    sys.stdout.write(f"{'':12}{'leases':>8}{'ready s':>10}{'RSS MiB':>12}{'leases/s':>10}\n")
    with postgres() as database:
        for name in options.only.split(","):
            start = {"strongroom": strongroom, "openbao": openbao}[name]
            with (
                tempfile.TemporaryDirectory(prefix="strongroom-bench-") as folder,
                start(Path(folder)) as subject,
            ):
                furnish(subject.server, database)
                write(name, 0, measure(subject, options.restarts))
                made, rate = fill(subject.server, Path(folder), options.leases)
                write(name, made, f"{measure(subject, options.restarts)}{rate:10.0f}")


def write(name: str, leases: int, figures: str) -> None:
    sys.stdout.write(f"{name:12}{leases:8}{figures}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""What many leases cost, Strongroom beside OpenBao: time until the first answer, memory, time to revoke all.

The leases are made through the API of each, by a database role whose statements are SELECT 1, so that the servers are
measured and not the database; the database is the PostgreSQL of the tests. The process with the leases is then
killed, started again, and asked until it answers; once without leases and once with them. Then all leases are revoked
by their prefix, without waiting: "marked" is when the answer comes. Needs wrk.

Usage: python bench/leases.py [--leases N] [--only strongroom,openbao] [--restarts N]
"""

import argparse
import contextlib
import json
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
from http import HTTPStatus
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import peers
from bench.peers import Server, wait_for
from tests.integration.databases import ADMIN, PASSWORD, Postgres, postgres

_CHUNK_SECONDS = 10
_LOOK_SECONDS, _CALM_SECONDS = 5, 60
_STABLE_SECONDS = 11  # what dies sooner is started again more slowly


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


def revoke(subject: Subject) -> str:
    """Revokes all leases by their prefix, without waiting.

    Returns:
        The seconds until the answer, those until the last lease that went within a minute of another was gone, how
        many were left then, and the most memory meanwhile.
    """
    server, started = subject.server, time.monotonic()
    server.call("PUT", "/v1/sys/leases/revoke-prefix/database", {"sync": False}, seconds=3600)
    gone = time.monotonic()
    certain, left, highest = gone - started, -1, 0.0
    while left and time.monotonic() < gone + _CALM_SECONDS:
        before, left = left, count(server)
        if left != before:
            gone = time.monotonic()
        highest = max(highest, subject.memory())
        time.sleep(_LOOK_SECONDS)
    return f"{certain:10.1f}{gone - started:10.1f}{left:10}{highest:10.0f}"


def count(server: Server) -> int:
    try:
        path = "/v1/sys/leases/lookup/database/creds/app/"
        return len(json.loads(server.call("LIST", path, seconds=600))["data"]["keys"])
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return 0


def measure(subject: Subject, restarts: int) -> str:
    seconds = []
    for _ in range(restarts):
        seconds.append(subject.restart())
        time.sleep(_STABLE_SECONDS)  # and what is loaded in the background belongs to the memory
    return f"{statistics.median(seconds):10.2f}{subject.memory():10.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--only", default="strongroom,openbao")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench: needs wrk on PATH (Debian package wrk)")
    columns = ("leases", "ready s", "RSS MiB", "leases/s", "marked s", "gone s", "left", "RSS MiB")
    sys.stdout.write(" " * 12 + "".join(f"{each:>10}" for each in columns) + "\n")
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
                kept = f"{measure(subject, options.restarts)}{rate:10.0f}"
                write(name, made, kept + revoke(subject))


def write(name: str, leases: int, figures: str) -> None:
    sys.stdout.write(f"{name:12}{leases:10}{figures}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

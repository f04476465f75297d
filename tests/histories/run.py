"""Lets clients and faults loose on an estate, and judges the history."""

import argparse
import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.histories import promises
from tests.histories.clients import Session, at_work
from tests.histories.cluster import Estate, estate
from tests.histories.faults import FAULTS, Keeper, Nemesis
from tests.histories.history import History, Outcome
from tests.histories.workloads import LAST, SECRETS, WORKLOADS, Leases, Watches
from tests.integration.client import Client
from tests.integration.databases import Postgres, postgres
from tests.integration.platforms import BIN, until

_HEALED_SECONDS = 120.0  # after which a platform that has been left alone has to work
_REQUEST_ID = re.compile(rb'"id":"([0-9a-f-]{36})"')


@dataclass(frozen=True)
class Play:
    """What is let loose.

    Args:
        seed: of all that is chosen at random; times are not, so that no history comes again.
        seconds: how long faults are done.
        nemeses: how many at once.
        faults: the names of those that are done.
    """

    seed: str
    seconds: float
    nemeses: int = 2
    faults: Sequence[str] = tuple(FAULTS)


@dataclass(frozen=True)
class Ending:
    """What was found when all was healed, killed at once, and started again.

    Args:
        history: of the clients, in which nothing about secrets is unknown any more.
        versions: of each secret the value of each version.
        unaudited: the ids of requests that were answered without an entry.
        verification: what `strongroom audit verify` says of all files; empty where all holds.
        leases: that are left though all were revoked.
        users: of the database that are left.
    """

    history: History
    versions: promises.Versions
    unaudited: Sequence[str]
    verification: str
    leases: Sequence[str]
    users: Sequence[str]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yields the names of promises that were broken, and how."""
        for check in promises.CHECKS:
            for problem in check(self.history):
                yield check.__name__, problem
        for of_versions in promises.CHECKS_OF_VERSIONS:
            for problem in of_versions(self.history, self.versions):
                yield of_versions.__name__, problem
        for request in self.unaudited:
            yield "every answer is audited", request
        if self.verification:
            yield "the audit log is whole", self.verification
        for left in (*self.leases, *self.users):
            yield "no lease and no user is left", left


def play(folder: Path, what: Play) -> Ending:
    """Lets clients and faults loose, and returns what was found in the end.

    Args:
        folder: takes all state and all logs.
        what: is let loose.

    Raises:
        OSError: a platform does not answer again by itself after all was healed.
    """
    history = History()
    with contextlib.ExitStack() as stack:
        database = Leases.database = stack.enter_context(postgres())
        hurt = stack.enter_context(estate(folder))
        workloads = [workload(hurt.gateways, history, what.seed) for workload in WORKLOADS]
        with at_work(workloads):
            _hurt(hurt, what)
            hurt.wait_until_all_serve(_HEALED_SECONDS)
            (watches,) = (w for w in workloads if isinstance(w, Watches))
            last = _write_last(hurt, history)
            until(lambda: min(watches.last) == last, _HEALED_SECONDS)
        hurt.start_all_again()
        hurt.wait_until_all_serve(_HEALED_SECONDS)
        versions = _versions(hurt, history)
        promises.settle(history, versions)
        leases, users = _leases_left(hurt, database)
        return Ending(history, versions, *_audited(hurt, history), leases, users)


def _hurt(hurt: Estate, what: Play) -> None:
    """Does faults for a while, and heals them."""
    keeper = Keeper(hurt)
    keeper.start()
    with (hurt.folder / "faults.log").open("w") as report:
        nemeses = [
            Nemesis(hurt, f"{what.seed} {number}", what.faults, report)
            for number in range(what.nemeses)
        ]
        for nemesis in nemeses:
            nemesis.start()
        time.sleep(what.seconds)
        for nemesis in nemeses:
            nemesis.end()
    keeper.end()


def _write_last(hurt: Estate, history: History) -> int:
    """Writes the secret by which watches know that all is over; returns its version."""
    session = Session(hurt.gateways, history, LAST)
    values = itertools.count()

    def write() -> int | None:
        value = next(values)
        last = session.do(
            session.begin("write", LAST, (value, None)),
            "POST", f"{SECRETS}/data/{LAST}", {"data": {"v": value}},
            result=lambda answer: answer.json()["data"]["version"],
        )  # fmt: skip
        version: int | None = last.result
        return version

    return int(until(write, _HEALED_SECONDS))


def _versions(hurt: Estate, history: History) -> dict[str, dict[int, Any]]:
    """Reads every version of every secret that somebody tried to write."""
    found: dict[str, dict[int, Any]] = {}
    with Client(hurt.platforms[0].address, hurt.gateways.ca) as client:

        def read(path: str) -> Any:
            answer = client.ask("GET", f"{SECRETS}/{path}", hurt.gateways.root)
            assert answer.status_code in (200, 404), answer.text
            return answer.json().get("data", {})

        for key in history.by_key("write"):
            found[key] = {
                int(number): read(f"data/{key}?version={number}")["data"]["v"]
                for number in read(f"metadata/{key}").get("versions", {})
            }
    return found


def _leases_left(hurt: Estate, database: Postgres) -> tuple[list[str], list[str]]:
    """Revokes all leases of database users; returns those that are left after a while, and the users."""
    site = hurt.platforms[1]

    def leases() -> list[str]:
        with Client(site.address, hurt.gateways.ca) as client:
            answer = client.ask("LIST", "sys/leases/lookup/db/creds/app", hurt.gateways.root)
        return list(answer.json()["data"]["keys"]) if answer.status_code == 200 else []

    def revoked() -> bool:
        # The answer waits for the leases that other processes are at.
        hurt.ask(site, "PUT", "sys/leases/revoke-prefix/db/creds/app")
        return not leases() and not database.users()

    with contextlib.suppress(OSError):
        until(revoked, _HEALED_SECONDS)
    return leases(), sorted(database.users())


def _audited(hurt: Estate, history: History) -> tuple[list[str], str]:
    """Returns the requests that were answered without an entry, and what the verification of all files says."""
    chains = hurt.folder / "chains.json"
    chains.write_text(json.dumps(hurt.ask(hurt.platforms[0], "GET", "sys/audit-chains")))
    files = hurt.audit_files()
    verified = subprocess.run(
        [str(BIN / "strongroom"), "audit", "verify", "--chains", str(chains), *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    entries = {match.decode() for file in files for match in _REQUEST_ID.findall(file.read_bytes())}
    unaudited = [request for request in history.request_ids if request not in entries]
    return unaudited, verified.stdout + verified.stderr if verified.returncode else ""


def _counted(history: History) -> str:
    """Returns how many operations there were, and how many of each outcome."""
    outcomes = Counter(operation.outcome for operation in history.operations)
    return ", ".join(f"{outcomes[outcome]} {outcome.value}" for outcome in Outcome)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default=str(random.randrange(1_000_000)))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are done")
    parser.add_argument("--nemeses", type=int, default=2, help="how many faults at once")
    parser.add_argument(
        "--faults", default=",".join(FAULTS), help="their names, separated by commas"
    )
    options = parser.parse_args()
    what = Play(options.seed, options.seconds, options.nemeses, options.faults.split(","))
    folder = Path(tempfile.mkdtemp(prefix=f"strongroom-histories-{what.seed}-"))
    print(f"seed {what.seed}, logs in {folder}")
    ending = play(folder, what)
    print(_counted(ending.history))
    problems = list(ending.problems())
    for name, problem in problems:
        print(f"{name}: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

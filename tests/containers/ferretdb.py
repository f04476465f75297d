"""FerretDB, which speaks MongoDB's protocol, over SQLite: built with Go where there is Go.

It stands in for MongoDB, which no package registry has. Its users have no roles, its sessions do not end with their
users, and it knows no users of certificates.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.containers.certificates import Pair
from tests.integration.platforms import until
from tests.ports import free_port

VERSION = "v1.24.2"
_MODULE = "github.com/FerretDB/FerretDB"
USER, PASSWORD = "root", "ferret-Password-1"


def built() -> Path | None:
    """Returns the program, built once for this machine's user; None where there is no Go, or not its source."""
    go = shutil.which("go")
    if go is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strongroom-tests"
    program = cache / f"ferretdb-{VERSION}"
    if program.exists():
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [go, "mod", "download", "-json", f"{_MODULE}@{VERSION}"]
        fetched = subprocess.run(command, cwd=folder, check=False, capture_output=True)
        if fetched.returncode:
            return None
        source = Path(folder) / "source"
        shutil.copytree(json.loads(fetched.stdout)["Dir"], source)
        subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)
        # The program wants to know its version, which a module does not bring along.
        (source / "build" / "version" / "version.txt").write_text(VERSION + "\n")
        made = Path(folder) / "ferretdb"
        subprocess.run(
            [go, "build", "-buildvcs=false", "-o", str(made), "./cmd/ferretdb"],
            cwd=source, check=True, capture_output=True,
        )  # fmt: skip
        made.rename(program)
    return program


@contextlib.contextmanager
def ferretdb(program: Path, server: Pair | None = None) -> Iterator[int]:
    """Runs it, over TLS alone where a certificate is given; returns its port on loopback."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="strongroom-ferretdb-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        listen = [f"--listen-addr=127.0.0.1:{port}"]
        if server is not None:
            (folder / "server.crt").write_text(server.certificate)
            (folder / "server.key").write_text(server.key)
            listen = [
                "--listen-addr=", f"--listen-tls=127.0.0.1:{port}",
                f"--listen-tls-cert-file={folder / 'server.crt'}",
                f"--listen-tls-key-file={folder / 'server.key'}",
            ]  # fmt: skip
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(program), "--handler=sqlite", f"--sqlite-url=file:{folder / 'data'}/", *listen,
                 "--debug-addr=-", "--telemetry=disable", f"--state-dir={folder}", "--test-enable-new-auth",
                 "--setup-database=admin", f"--setup-username={USER}", f"--setup-password={PASSWORD}"],
                stdout=output, stderr=output,
            )  # fmt: skip
        try:
            until(lambda: "Listening on T" in log.read_text())
            yield port
        finally:
            process.terminate()
            process.wait(120)

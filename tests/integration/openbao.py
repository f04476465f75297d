"""A development server of OpenBao: the peer beside which answers are compared."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.client import Client
from tests.integration.platforms import BAO, until
from tests.ports import free_port

TOKEN = "root"


@contextlib.contextmanager
def openbao(home: Path) -> Iterator[str]:
    """Yields the address of a server, whose root token is `TOKEN`; what it says goes to a file in `home`."""
    address = f"127.0.0.1:{free_port()}"
    command = [BAO, "server", "-dev", f"-dev-root-token-id={TOKEN}", "-dev-no-store-token"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"-dev-listen-address={address}"],
            env={"HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    try:
        with Client(f"http://{address}", "") as client:
            until(lambda: client.ask("GET", "sys/health", None).ok)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()

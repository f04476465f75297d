"""Processes that start before their etcd, or while it has no leader, wait for it and are not started again."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity
from tests.integration.platforms import BIN, TOPOLOGIES, start, until
from tests.ports import free_port

WAITING = "waiting for etcd"


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_platform_begins_when_its_etcd_comes(tmp_path: Path, topology: str) -> None:
    etcd = EmbeddedEtcd(tmp_path / "etcd")
    log = tmp_path / "platform" / "output.log"
    servers = 1 if topology == "all" else 7
    with contextlib.ExitStack() as running:
        starting = asyncio.create_task(
            asyncio.to_thread(
                running.enter_context,
                start(
                    tmp_path / "platform", topology, f"--etcd-endpoints={etcd.config.endpoints[0]}",
                    command="server",
                ),
            )
        )  # fmt: skip
        # The supervisor waits as well, to say what it knows of etcd's release.
        await asyncio.to_thread(
            until, lambda: log.exists() and log.read_text().count(WAITING) == servers + 1
        )
        await etcd.start()
        platform = await starting
        platform.root = _root(tmp_path / "platform" / "said.txt")
        secret = platform.http("POST", "secret/data/late", platform.root, json={"data": {"v": "1"}})
        assert secret.status_code == 200
    said = log.read_text()
    assert said.count(WAITING) == said.count("etcd answers") == servers + 1
    assert "a server ended" not in said
    await etcd.stop()


def _root(said: Path) -> str:
    return next(
        line.partition("=")[2] for line in said.read_text().splitlines() if "BAO_TOKEN=" in line
    )


@contextlib.contextmanager
def alone(folder: Path, target: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs one process as a container does."""
    pki.initialise(folder / "pki", "strongroom.internal", [target, "client"])
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(BIN / "strongroom"), "serve-one", f"--target={target}",
                f"--pki-dir={folder / 'pki'}", f"--data-dir={folder / 'data'}",
                "--internal-listen=127.0.0.1:0", *options,
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("target", ["kv", "seal", "gateway"])
def test_one_that_waits_lives_is_not_ready_and_ends_when_it_is_told_to(
    tmp_path: Path, target: str
) -> None:
    health = f"127.0.0.1:{free_port()}"
    options = (
        f"--etcd-endpoints=127.0.0.1:{free_port()}", f"--health-listen={health}", "--seal=shamir",
    )  # fmt: skip
    with alone(tmp_path, target, *options) as process:
        until(lambda: WAITING in (tmp_path / "output.log").read_text())
        assert requests.get(f"http://{health}/live", timeout=30).status_code == 200
        assert requests.get(f"http://{health}/ready", timeout=30).status_code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert (tmp_path / "output.log").read_text().count(WAITING) == 1


async def test_one_that_etcd_does_not_trust_ends_and_says_what_to_change(tmp_path: Path) -> None:
    pki.initialise(tmp_path / "other", "strongroom.internal", ["etcd"])
    etcd = EmbeddedEtcd(tmp_path / "etcd", Identity.of(tmp_path / "other", "etcd"))
    await etcd.start()
    options = (
        f"--etcd-endpoints={etcd.config.endpoints[0]}", f"--etcd-pki-dir={tmp_path / 'pki'}",
    )  # fmt: skip
    with alone(tmp_path, "kv", *options) as process:
        assert await asyncio.to_thread(process.wait, 120) == 1
    assert "strongroom: etcd_pki_dir: TLS with etcd fails" in (tmp_path / "output.log").read_text()
    await etcd.stop()

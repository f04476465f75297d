"""A supervisor that cannot start a process at the first attempt, or has to start one again and again."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from strongroom_cli import supervisor
from strongroom_cli.settings import ServerConfig
from strongroom_cli.spawning import Executing
from strongroom_cli.supervisor import Child, Supervisor, _pause
from strongroom_runtime.etcd.server import EmbeddedEtcd


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_BACK_OFF", (0.01,))


def refusing(monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Lets the system refuse to start a process so many times; returns what was refused."""
    start = asyncio.create_subprocess_exec
    refused: list[str] = []

    async def refuse(*command: Any, **options: Any) -> Any:
        if len(refused) < times:
            refused.append(str(command[0]))
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    return refused


@pytest.mark.usefixtures("impatient")
async def test_a_server_is_started_again_as_soon_as_the_system_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Supervisor(ServerConfig(data_dir=tmp_path), Executing((sys.executable, "-c")))
    child = Child("kv", ["import time; time.sleep(600)"], leaves_first=False)
    await running._spawn(child)
    first = child.pid
    refused = refusing(monkeypatch, times=3)
    watching = asyncio.create_task(running._watch(child))
    assert child.process is not None
    child.process.kill()
    async with asyncio.timeout(20):
        while child.pid in (0, first):
            await asyncio.sleep(0.01)
    assert len(refused) == 3
    watching.cancel()
    child.process.kill()
    await child.process.wait()


@pytest.mark.usefixtures("impatient")
async def test_etcd_is_started_again_as_soon_as_the_system_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd = EmbeddedEtcd(tmp_path)
    await etcd.start()
    first = etcd.pid
    running = Supervisor(ServerConfig(data_dir=tmp_path), Executing())
    watching = asyncio.create_task(running._watch_etcd(etcd))
    await asyncio.sleep(0)
    refused = refusing(monkeypatch, times=3)
    await etcd.kill()
    async with asyncio.timeout(30):
        while etcd.pid in (0, first):
            await asyncio.sleep(0.01)
    assert len(refused) == 3
    watching.cancel()
    await etcd.stop()


def test_what_fails_again_and_again_is_started_less_and_less_often() -> None:
    pauses = [_pause(failures) for failures in range(100)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 30.0
    assert sum(pauses[:20]) < 60  # what comes right within some tries is not kept waiting

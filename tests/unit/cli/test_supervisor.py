"""A supervisor that cannot start a process at the first attempt, or has to start one again and again."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port
from tests.waiting import until

from strongroom_cli import supervisor
from strongroom_cli.mortality import Living
from strongroom_cli.settings import ServerConfig
from strongroom_cli.spawning import Executing, Running
from strongroom_cli.supervisor import Child, Supervisor, _pause
from strongroom_runtime.children import LEAVE
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
    async with asyncio.timeout(60):
        while child.pid in (0, first):
            await asyncio.sleep(0.01)
    assert len(refused) == 3
    watching.cancel()
    child.process.kill()
    await child.process.wait()


class Slow(Executing):
    """Starts processes, and says so only when it is let."""

    def __init__(self) -> None:
        super().__init__((sys.executable, "-c"))
        self.started: list[Running] = []
        self.let = asyncio.Event()

    async def spawn(self, arguments: Sequence[str], descriptor: int) -> Running:
        self.started.append(await super().spawn(arguments, descriptor))
        await self.let.wait()
        return self.started[-1]


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_is_being_started_when_all_are_told_to_end_ends_too(
    tmp_path: Path,
) -> None:
    spawner = Slow()
    running = Supervisor(ServerConfig(data_dir=tmp_path), spawner)
    child = Child("kv", ["import time; time.sleep(600)"], leaves_first=False)
    running._children.append(child)
    spawner.let.set()
    await running._spawn(child)
    child.task = asyncio.create_task(running._watch(child))
    spawner.let.clear()
    spawner.started[0].kill()
    await until(lambda: len(spawner.started) == 2)
    stopping = asyncio.create_task(running.stop())
    await asyncio.sleep(0.1)
    spawner.let.set()
    await stopping
    assert [each.returncode for each in spawner.started] == [-signal.SIGKILL, -LEAVE]


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def listening_at(server: socket.socket, folder: Path) -> Supervisor:
    """Returns a supervisor whose gateway is to listen where somebody does."""
    listen = f"127.0.0.1:{server.getsockname()[1]}"
    config = ServerConfig(data_dir=folder, listen=listen, grpc_listen=f"127.0.0.1:{free_port()}")
    return Supervisor(config, Executing())


async def test_a_supervisor_waits_for_the_servers_of_a_killed_one_to_let_go_of_its_addresses(
    tmp_path: Path, taken: socket.socket
) -> None:
    _, held = Living(tmp_path / "living").name()  # by a server that lives
    checking = asyncio.create_task(listening_at(taken, tmp_path)._check_addresses())
    await asyncio.sleep(0.2)
    assert not checking.done()
    taken.close()
    await checking
    os.close(held)


async def test_a_supervisor_waits_for_nobody_elses_addresses(
    tmp_path: Path, taken: socket.socket
) -> None:
    _, held = Living(tmp_path / "living").name()
    os.close(held)  # that one has ended
    with pytest.raises(RuntimeError, match="listen: cannot listen on"):
        await listening_at(taken, tmp_path)._check_addresses()


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
    async with asyncio.timeout(60):
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

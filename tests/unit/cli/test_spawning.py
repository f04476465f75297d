"""Servers that are started as programs of their own, or by a fork server."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.waiting import until

from strongroom_cli.mortality import Living
from strongroom_cli.spawning import Executing, Forking, Spawner

# Runs the code that it is given in the place of a command's arguments.
FORK_SERVER = """
import os, socket, sys
from strongroom_cli.forkserver import run
{before}
with socket.socket(fileno=int(sys.argv[1])) as channel:
    arguments = run(channel)
if arguments is not None:
    exec(arguments[0])
"""
SLEEP = "import time; time.sleep(600)"


def forking(before: str = "") -> Forking:
    return Forking((sys.executable, "-c", FORK_SERVER.format(before=before)))


def executing() -> Executing:
    return Executing((sys.executable, "-c"))


EACH = [
    executing,
    pytest.param(forking, marks=pytest.mark.skipif(not Forking.possible(), reason="Linux alone")),
]


@pytest.fixture(params=EACH)
async def spawner(request: pytest.FixtureRequest) -> AsyncIterator[Spawner]:
    made: Spawner = request.param()
    await made.begin()
    yield made
    await made.close()


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    return os.open(tmp_path / "held", os.O_CREAT | os.O_RDWR)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_its_status_is_told(spawner: Spawner, descriptor: int) -> None:
    ended = await spawner.spawn(["raise SystemExit(7)"], descriptor)
    assert await ended.wait() == 7
    assert ended.returncode == 7
    killed = await spawner.spawn([SLEEP], descriptor)
    assert killed.returncode is None
    killed.kill()
    assert await killed.wait() == await killed.wait() == -9
    assert not lives(killed.pid)
    assert killed.pid != ended.pid


async def test_who_does_not_wait_any_more_takes_nothing_from_others(
    spawner: Spawner, descriptor: int
) -> None:
    running = await spawner.spawn([SLEEP], descriptor)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.wait(), 0.01)
    waiting = asyncio.create_task(running.wait())
    await asyncio.sleep(0)
    running.send_signal(15)
    assert await waiting == -15


async def test_it_is_a_child_with_a_session_of_its_own_and_no_input(
    spawner: Spawner, descriptor: int, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    code = (
        "import os, sys; "
        f"open({str(seen)!r}, 'w').write(f'{{os.getppid()}} {{os.getsid(0)}} {{sys.stdin.read()!r}}')"
    )
    running = await spawner.spawn([code], descriptor)
    assert await running.wait() == 0
    assert seen.read_text() == f"{os.getpid()} {running.pid} ''"


async def test_it_alone_holds_what_it_was_given(spawner: Spawner, tmp_path: Path) -> None:
    living = Living(tmp_path / "living")
    names, running = [], []
    for _ in range(2):
        name, descriptor = living.name()
        names.append(name)
        running.append(await spawner.spawn([SLEEP], descriptor))
        os.close(descriptor)
    await asyncio.sleep(0.3)
    assert living.dead() == []
    running[0].kill()
    await running[0].wait()
    assert living.dead() == names[:1]
    running[1].kill()
    await running[1].wait()
    assert sorted(living.dead()) == sorted(names)


PARENT = """
import asyncio, os, sys
sys.path.insert(0, {root!r})
from tests.unit.cli.test_spawning import SLEEP, executing, forking

async def start():
    spawner = {spawner}()
    await spawner.begin()
    running = await spawner.spawn([SLEEP], os.open(os.devnull, os.O_RDONLY))
    server = getattr(spawner, "_server", None)
    print(running.pid, server.pid if server else 0, flush=True)
    await running.wait()

asyncio.run(start())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked for it")
@pytest.mark.parametrize("spawner", ["executing", "forking"])
async def test_it_ends_with_the_one_that_started_it(spawner: str) -> None:
    script = PARENT.format(root=str(Path(__file__).parents[3]), spawner=spawner)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split() if pid != b"0"]
        await until(lambda: all(lives(pid) for pid in pids))
        parent.kill()
    await until(lambda: not any(lives(pid) for pid in pids))


linux = pytest.mark.skipif(not Forking.possible(), reason="needs Linux 5.3")


@linux
async def test_a_fork_server_that_ended_is_started_again(descriptor: int) -> None:
    spawner = forking()
    first = await spawner.spawn([SLEEP], descriptor)
    assert spawner._server is not None
    spawner._server.kill()
    await spawner._server.wait()
    second = await spawner.spawn([SLEEP], descriptor)
    assert first.returncode is None
    assert lives(first.pid)
    await spawner.close()
    for each in (first, second):
        assert lives(each.pid)
        each.kill()
        assert await each.wait() == -9


@linux
async def test_many_at_once_are_made_one_by_one(descriptor: int) -> None:
    spawner = forking()
    running = await asyncio.gather(*(spawner.spawn([SLEEP], descriptor) for _ in range(8)))
    assert len({each.pid for each in running}) == 8
    await spawner.close()
    for each in running:
        each.kill()
    assert [await each.wait() for each in running] == [-9] * 8


REFUSE = """
fork, refused = os.fork, {refused}
def refuse():
    global refused
    refused -= 1
    if refused == 0:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = refuse
"""


@linux
@pytest.mark.parametrize("refused", [1, 2], ids=["first", "second"])
async def test_a_fork_that_the_system_refuses_is_told(descriptor: int, refused: int) -> None:
    spawner = forking(REFUSE.format(refused=refused))
    with pytest.raises(BlockingIOError) as error:
        await spawner.spawn([SLEEP], descriptor)
    assert error.value.errno == errno.EAGAIN
    if refused == 1:  # the second is of a copy that counts by itself: it is refused each time
        running = await spawner.spawn(["raise SystemExit(3)"], descriptor)
        assert await running.wait() == 3
    assert spawner._server is not None
    assert not Path(f"/proc/{spawner._server.pid}/task/{spawner._server.pid}/children").read_text()
    await spawner.close()


@linux
async def test_a_fork_server_that_cannot_be_run_is_told(descriptor: int) -> None:
    spawner = Forking((sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(OSError, match="fork server"):
        await spawner.spawn([SLEEP], descriptor)
    await spawner.close()


@linux
async def test_the_fork_server_of_a_platform_has_one_thread_and_runs_commands(
    descriptor: int,
) -> None:
    spawner = Forking()
    running = await spawner.spawn(["health", "--health-listen=127.0.0.1:1"], descriptor)
    assert await running.wait() == 1  # nobody answers there
    assert spawner._server is not None
    assert len(list(Path(f"/proc/{spawner._server.pid}/task").iterdir())) == 1
    await spawner.close()


COPYING = """
import asyncio, os, sys, tempfile
from pathlib import Path
from strongroom_cli import spawning

async def refused(spawner):
    descriptor = os.open(os.devnull, os.O_RDONLY)
    running = await spawner.spawn(["health", "--health-listen=127.0.0.1:1"], descriptor)
    return await running.wait()

async def start(folder):
    spawner = spawning.prepare()
    await spawner.begin()
    copy = spawner._server
    print(await refused(spawner), Path(folder).exists())
    print(len(os.listdir(f"/proc/{copy.pid}/task")), os.getsid(copy.pid) == copy.pid)
    print(os.readlink(f"/proc/{copy.pid}/fd/0"))
    copy.kill()
    await copy.wait()
    print(await refused(spawner), spawner._server.pid != copy.pid)
    await spawner.close()

with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
    asyncio.run(start(folder))
"""


@linux
def test_the_first_fork_server_is_a_copy_that_clears_nothing_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COPYING, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, timeout=60, check=True,
    )  # fmt: skip
    # Nobody answers the command; once it has ended, what is the parent's to clear up is still there.
    assert done.stdout.splitlines() == ["1 True", "1 True", os.devnull, "1 True"]


@linux
async def test_the_copy_ends_with_the_one_that_it_is_of() -> None:
    script = (
        "from strongroom_cli.forkserver import fork_from_here; "
        "copy, channel = fork_from_here(); print(copy, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        copy = int(parent.stdout.readline())
        assert lives(copy)
        parent.kill()
    await until(lambda: not lives(copy))

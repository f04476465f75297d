"""The audit file: whole lines, one chain a writer, fail closed."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_audit.domain.chain import Chain, verify
from strongroom_audit.writer import FileWriter
from strongroom_runtime.errors import Kind, ServiceError


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def log(count: int) -> list[bytes]:
    linked = Chain("w").link(json.dumps({"n": n}).encode() for n in range(count))
    return linked.data.splitlines()


def test_an_untouched_log_holds() -> None:
    report = verify(log(20))
    assert (report.lines, report.chains, report.problems) == (20, {"w": 20}, [])


@given(st.data())
def test_any_change_within_a_chain_is_found(data: st.DataObject) -> None:
    entries = log(8)
    where = data.draw(st.integers(0, 6))
    what = data.draw(st.sampled_from(["change", "remove", "repeat", "swap"]))
    if what == "change":
        position = data.draw(st.integers(0, len(entries[where]) - 1))
        changed = bytearray(entries[where])
        changed[position] ^= data.draw(st.sampled_from([1, 2, 4, 16]))
        entries[where] = bytes(changed)
    elif what == "remove":
        del entries[where]
    elif what == "repeat":
        entries.insert(where, entries[where])
    else:
        entries[where], entries[where + 1] = entries[where + 1], entries[where]
    assert verify(entries).problems


async def test_entries_of_one_moment_are_all_written_in_order(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path / "audit.log")
    await asyncio.gather(*(writer.append(b'{"n":%d}' % n) for n in range(300)))
    await writer.close()
    report = verify(lines(tmp_path / "audit.log"))
    assert (report.lines, report.problems) == (301, [])
    numbers = [json.loads(line)["n"] for line in lines(tmp_path / "audit.log")[1:]]
    assert numbers == list(range(300))
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


async def test_two_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writers = [FileWriter(path, sync_always=n == 1) for n in range(2)]
    await asyncio.gather(*(writers[n % 2].append(b"{}") for n in range(100)))
    report = verify(lines(path))
    assert (sorted(report.chains.values()), report.problems) == ([51, 51], [])
    for writer in writers:
        await writer.close()


async def test_a_new_file_continues_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path)
    await writer.append(b'{"n":1}')
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    await writer.append(b'{"n":2}')
    await writer.close()
    assert len(lines(tmp_path / "old.log")) == 2
    start = json.loads(lines(path)[0])
    second = json.loads(lines(path)[1])
    assert (start["type"], len(start["after"]), second["n"]) == ("chain-start", 64, 2)
    assert verify(lines(path)).problems == []


async def test_reopening_while_an_entry_waits_writes_it_to_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path)
    waiting = asyncio.create_task(writer.append(b'{"n":1}'))
    await asyncio.sleep(0)
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    await waiting
    await asyncio.sleep(0.01)
    assert json.loads(lines(tmp_path / "old.log")[-1])["n"] == 1
    assert path.read_bytes() == b""
    await writer.close()


async def test_a_cancelled_caller_loses_no_entry(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path / "audit.log")
    task = asyncio.create_task(writer.append(b'{"n":1}'))
    await asyncio.sleep(0)
    task.cancel()
    await writer.close()
    assert [json.loads(x).get("n") for x in lines(tmp_path / "audit.log")] == [None, 1]


async def test_a_full_disk_fails_requests_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    written = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(ServiceError) as caught:
            while True:
                await writer.append(b'{"padding":"' + b"x" * 300 + b'"}')
                written += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert caught.value.kind is Kind.UNAVAILABLE
    await writer.append(b"{}")
    await writer.close()
    report = verify(lines(path))
    assert (report.lines, report.problems) == (written + 2, [])


def test_what_was_acknowledged_before_a_kill_is_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    program = f"""
import asyncio, pathlib
from strongroom_audit.writer import FileWriter
async def main():
    writer = FileWriter(pathlib.Path({str(path)!r}))
    n = 0
    while True:
        await writer.append(b'{{"n":%d}}' % n)
        print(n, flush=True)
        n += 1
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = 199 + len(process.stdout.read().split())
    report = verify(lines(path))
    assert report.problems == []
    assert report.lines - 1 >= acknowledged


async def test_a_line_that_another_process_left_torn_swallows_none(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"type":"requ')
    writer = FileWriter(path)
    await writer.append(b'{"n":1}')
    await writer.close()
    report = verify(lines(path))
    assert report.problems == ["line 1: not an audit entry"]
    assert json.loads(lines(path)[2])["n"] == 1


@pytest.mark.parametrize("path", ["absent/audit.log", "link"])
def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServiceError, match="file_path"):
        FileWriter(tmp_path / path)

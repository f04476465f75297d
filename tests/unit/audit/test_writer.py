"""The audit file: whole lines, one chain a writer, fail closed."""

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.garbage import no_frames_left
from tests.unit.audit.keys import KEY, key

from strongroom_audit import presence
from strongroom_audit.domain.chain import Chain
from strongroom_audit.domain.keys import SigningKey
from strongroom_audit.domain.verification import Expectation, Report, Verifier
from strongroom_audit.writer import FileWriter
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import Kind, ServiceError


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def verified(*files: Path) -> Report:
    verifier = Verifier(Expectation(anchors=[KEY.public]))
    for file in files:
        verifier.read(file.name, file.read_bytes().splitlines(keepends=True))
    return verifier.report()


def sizes(report: Report) -> list[int]:
    return sorted(chain.last + 1 for chain in report.chains)


async def test_entries_of_one_moment_are_all_written_in_order(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path / "audit.log", key)
    await asyncio.gather(*(writer.append(b'{"n":%d}' % n) for n in range(300)))
    await writer.close()
    report = verified(tmp_path / "audit.log")
    assert (report.lines, report.problems, report.chains[0].unsealed) == (302, [], 0)
    numbers = [json.loads(line)["n"] for line in lines(tmp_path / "audit.log")[1:-1]]
    assert numbers == list(range(300))
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


async def test_two_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writers = [FileWriter(path, key, sync_always=n == 1) for n in range(2)]
    await asyncio.gather(*(writers[n % 2].append(b"{}") for n in range(100)))
    report = verified(path)
    assert (sizes(report), report.problems) == ([51, 51], [])
    for writer in writers:
        await writer.close()
    report = verified(path)
    assert (sizes(report), report.problems) == ([52, 53], [])  # one has seen the other
    assert [(chain.ended, chain.unsealed) for chain in report.chains] == [(True, 0)] * 2


async def test_a_new_file_continues_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    await writer.append(b'{"n":1}')
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    await writer.append(b'{"n":2}')
    await writer.close()
    old, new = tmp_path / "old.log", path
    assert [json.loads(line).get("type") for line in lines(old)] == [
        "chain-start",
        None,
        "chain-seal",
    ]
    assert [json.loads(line).get("type") for line in lines(new)] == [
        "chain-continue",
        None,
        "chain-end",
    ]
    for files in ((old, new), (new, old)):
        report = verified(*files)
        assert (report.problems, report.notices, sizes(report)) == ([], [], [6])
    alone = verified(new)
    assert (alone.problems, alone.chains[0].first) == ([], 3)
    assert "which was not given" in alone.notices[0]


async def test_reopening_a_file_that_was_not_moved_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    await writer.append(b'{"n":1}')
    await writer.reopen()
    await writer.append(b'{"n":2}')
    await writer.close()
    assert [json.loads(line).get("n") for line in lines(path)] == [None, 1, 2, None]


async def test_a_chain_ends_in_a_new_file_that_got_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    await writer.append(b'{"n":1}')
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    await writer.close()
    assert [json.loads(line)["type"] for line in lines(path)] == ["chain-continue", "chain-end"]
    assert verified(path, tmp_path / "old.log").chains[0].ended


async def test_what_is_said_to_be_on_the_disk_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    await writer.append(b'{"n":1}')
    assert writer.synced.seq == 0
    await writer.sync()
    await writer.append(b'{"n":2}')
    last = hashlib.sha256(lines(path)[1]).hexdigest()
    assert (writer.synced.seq, writer.synced.prev) == (2, last)
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    last = hashlib.sha256(lines(tmp_path / "old.log")[-1]).hexdigest()
    assert (writer.synced.seq, writer.synced.prev) == (4, last)
    await writer.close()
    assert (writer.synced.seq, writer.ended) == (6, True)


async def test_seals_follow_upon_what_was_written_and_upon_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    writer.seal()
    assert lines(path) == []
    await writer.append(b'{"n":1}')
    writer.seal()
    writer.seal()
    await writer.append(b'{"n":2}')
    writer.seal()
    assert [json.loads(line).get("type") for line in lines(path)] == [
        "chain-start", None, "chain-seal", None, "chain-seal"
    ]  # fmt: skip
    await writer.close()


async def test_where_the_background_is_late_a_write_is_sealed_at_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit.log", ManualClock()
    writer = FileWriter(path, key, clock=clock)
    await writer.append(b'{"n":1}')
    clock.advance(2.9)
    await writer.append(b'{"n":2}')
    clock.advance(0.2)
    await writer.append(b'{"n":3}')
    await writer.append(b'{"n":4}')
    kinds = [json.loads(line).get("type") for line in lines(path)]
    assert kinds == ["chain-start", None, None, None, "chain-seal", None]
    await writer.close()


async def test_once_in_each_file_a_writer_seals_what_others_have_in_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    killed, writer = FileWriter(path, key), FileWriter(path, key)
    await writer.witness()
    await killed.append(b'{"n":1}')
    await writer.append(b'{"n":2}')
    await writer.witness()
    await writer.witness()
    entries = [json.loads(line) for line in lines(path)]
    seen = {entries[0]["chain"]["writer"]: {"entries": 2, "hash": writer_hash(path, 1)}}
    assert [entry.get("seen") for entry in entries] == [None, None, None, None, seen]
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    await writer.append(b'{"n":3}')
    await writer.witness()
    assert "seen" not in json.loads(lines(path)[-1])  # there is nobody else
    await writer.close()
    assert verified(path, tmp_path / "old.log").problems == []


async def test_a_writer_that_left_a_file_is_told_from_one_that_is_still_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.log"
    killed, alive, writer = (FileWriter(path, key) for _ in range(3))
    for n, each in enumerate((killed, alive, writer)):
        await each.append(b'{"n":%d}' % n)
    killed.discard()  # as the end of its process does
    await writer.witness()
    seen = json.loads(lines(path)[-1])["seen"]
    chains = [json.loads(line)["chain"]["writer"] for line in lines(path)[0::2]]
    assert [seen[chain].get("gone") for chain in chains[:2]] == [True, None]
    await alive.append(b'{"n":3}')
    for each in (alive, writer):
        await each.close()
    assert verified(path).problems == []
    # Somebody goes on with the chain of the killed process, hashes and all.
    forged = Chain(chains[0], 2, writer_hash(path, 1)).link([b'{"time":"2030-01-01T00:00:00Z"}'])
    whole = lines(path)
    for position in (2, 5, len(whole)):
        added = [*whole[:position], forged.data[:-1], *whole[position:]]
        path.write_bytes(b"\n".join([*added, b""]))
        (problem,) = verified(path).problems
        assert "were added when it had left the file" in problem.text


async def test_what_a_writer_wrote_while_others_looked_is_part_of_what_they_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.log"
    leaving, writer = FileWriter(path, key), FileWriter(path, key)
    for each in (leaving, writer):
        await each.append(b"{}")

    def is_gone(descriptor: int, name: str) -> bool:
        if name == json.loads(lines(path)[0])["chain"]["writer"]:
            leaving._write_group([(b'{"n":"the last"}',)])
            leaving.discard()
        return presence.is_gone(descriptor, name)

    monkeypatch.setattr("strongroom_audit.writer.is_gone", is_gone)
    await writer.witness()
    (seen,) = json.loads(lines(path)[-1])["seen"].values()
    assert (seen["entries"], seen["gone"]) == (3, True)
    await writer.close()
    assert verified(path).problems == []


async def test_chains_of_earlier_versions_are_never_said_to_be_gone(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(Chain("a" * 16).link([b'{"type":"chain-start"}', b"{}"]).data)
    writer = FileWriter(path, key)
    await writer.append(b"{}")
    await writer.witness()
    assert json.loads(lines(path)[-1])["seen"]["a" * 16].keys() == {"entries", "hash"}
    await writer.close()


def writer_hash(path: Path, line: int) -> str:
    return hashlib.sha256(lines(path)[line]).hexdigest()


async def test_a_new_key_seals_from_then_on_with_its_certificate(tmp_path: Path) -> None:
    path, keys = tmp_path / "audit.log", [KEY]
    writer = FileWriter(path, lambda: keys[-1])
    await writer.append(b'{"n":1}')
    keys.append(KEY.successor(b"\2" * 32, "2023-11-15T22:13:20.000000Z"))
    for n in (2, 3):
        await writer.append(b'{"n":%d}' % n)
        writer.seal()
    await writer.close()
    entries = [json.loads(line) for line in lines(path)]
    certificates = [entry["certificate"]["number"] for entry in entries if "certificate" in entry]
    assert certificates == [1, 2]
    report = verified(path)
    assert (report.problems, report.chains[0].unsealed) == ([], 0)
    assert report.keys == {KEY.public: True, keys[-1].public: True}


async def test_without_a_key_nothing_begins(tmp_path: Path) -> None:
    def sealed() -> SigningKey:
        raise ServiceError(Kind.SEALED, "Vault is sealed")

    writer = FileWriter(tmp_path / "audit.log", sealed)
    for _ in range(2):
        with pytest.raises(ServiceError, match="sealed"):
            await asyncio.gather(*(writer.append(b"{}") for _ in range(3)))
    assert (tmp_path / "audit.log").read_bytes() == b""
    await writer.close()


async def test_what_stays_of_a_failed_write_is_not_written_again_by_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    await writer.append(b'{"n":1}')

    def half(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: data.nbytes // 2 + 5])

    def broken(descriptor: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    write, calls = os.write, list[int]()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(ServiceError):
            await writer.append(b'{"n":2}', b'{"n":2}', b'{"n":2}', b'{"n":2}')
    await writer.append(b'{"n":3}')
    await writer.close()
    report = verified(path)
    assert (report.problems, len(report.chains)) == ([], 2)
    assert "a crash cut a line short" in report.notices[0]


async def test_reopening_while_an_entry_waits_writes_it_to_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    waiting = asyncio.create_task(writer.append(b'{"n":1}'))
    await asyncio.sleep(0)
    path.rename(tmp_path / "old.log")
    await writer.reopen()
    await waiting
    await asyncio.sleep(0.01)
    assert json.loads(lines(tmp_path / "old.log")[-2])["n"] == 1
    assert path.read_bytes() == b""
    await writer.close()


async def test_a_cancelled_caller_loses_no_entry(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path / "audit.log", key)
    task = asyncio.create_task(writer.append(b'{"n":1}'))
    await asyncio.sleep(0)
    task.cancel()
    await writer.close()
    assert [json.loads(x).get("n") for x in lines(tmp_path / "audit.log")] == [None, 1, None]


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Lets no file grow beyond 4 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize("together", [1, 3])
async def test_a_full_disk_leaves_nothing_in_memory(tmp_path: Path, together: int) -> None:
    writer = FileWriter(tmp_path / "audit.log", key)

    async def append() -> None:
        with contextlib.suppress(ServiceError):
            await writer.append(b'{"padding":"' + b"x" * 5_000 + b'"}')

    with full_disk(), no_frames_left():
        for _ in range(3):
            await asyncio.gather(*(append() for _ in range(together)))
    await writer.close()


async def test_a_full_disk_fails_requests_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writer = FileWriter(path, key)
    written = 0
    with full_disk(), pytest.raises(ServiceError) as caught:
        while True:
            await writer.append(b'{"padding":"' + b"x" * 300 + b'"}')
            written += 1
    assert caught.value.kind is Kind.UNAVAILABLE
    await writer.append(b"{}")
    await writer.close()
    report = verified(path)
    assert (report.lines, report.problems) == (written + 3, [])


def test_what_was_acknowledged_before_a_kill_is_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    program = f"""
import asyncio, pathlib
from strongroom_audit.writer import FileWriter
from tests.unit.audit.keys import key
async def main():
    writer = FileWriter(pathlib.Path({str(path)!r}), key)
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
    report = verified(path)
    assert report.problems == []
    assert report.lines - 1 >= acknowledged
    assert not report.chains[0].ended


async def test_a_line_that_another_process_left_torn_swallows_none(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"type":"requ')
    writer = FileWriter(path, key)
    await writer.append(b'{"n":1}')
    await writer.close()
    report = verified(path)
    assert (report.problems, len(report.notices)) == ([], 1)
    assert json.loads(lines(path)[2])["n"] == 1


@pytest.mark.parametrize("path", ["absent/audit.log", "link"])
def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServiceError, match="file_path"):
        FileWriter(tmp_path / path, key)

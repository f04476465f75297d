"""Files of ciphertexts, rewrapped: every format, what fails, what is interrupted, and who comes again."""

import contextlib
import csv
import io
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.transit.v1 import stream_pb2 as pb
from strongroom_cli.rewrap import job
from strongroom_cli.rewrap.job import JobError, Task
from strongroom_cli.rewrap.records import Columns, Csv, Format, FormatError, JsonLines, Lines


class Bulk:
    """Rewraps `old…` and `new…` to `new…`; ends with an error behind so many."""

    def __init__(self, ends_behind: int = 10**9) -> None:
        self.left = ends_behind
        self.asked: list[pb.DecryptStreamItem] = []

    async def rewrap(
        self, name: str, items: Any, *, key_version: int
    ) -> AsyncIterator[pb.EncryptStreamResult]:
        async for item in items:
            if not self.left:
                raise InterruptedError
            self.left -= 1
            self.asked.append(item)
            if item.ciphertext.startswith(("old", "new")):
                yield pb.EncryptStreamResult(ciphertext="new" + item.ciphertext[3:])
            else:
                yield pb.EncryptStreamResult(error="invalid ciphertext: no prefix")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_CHECKPOINT_SECONDS", 0.0)


def task(folder: Path, form: Format, source: str = "in", target: str = "out") -> Task:
    return Task(folder / source, folder / target, form, "orders", 0, {"mount": "transit"})


async def run(task: Task, bulk: Bulk) -> job.Progress:
    return await job.run(task, bulk, lambda size: None)  # type: ignore[arg-type]


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"in", "out"}


async def test_lines(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"old1\r\n\nold2  \nold3")
    (tmp_path / "in").chmod(0o640)
    progress = await run(task(tmp_path, Lines()), Bulk())
    assert (tmp_path / "out").read_bytes() == b"new1\r\n\nnew2  \nnew3"
    assert (progress.records, progress.failed) == (4, 0)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    assert left_over(tmp_path) == set()


async def test_json_lines_keep_everything_else_as_it_is(tmp_path: Path) -> None:
    lines = [
        '{"id": 18446744073709551617, "card": "old1", "x": 1.50, "ctx": "Y3R4", "ad": "YWQ="}',
        '{"card": null, "id": 2}',
        "",
        '{"id": 3}',
        '{"card": "old\\u0031", "id": 4}',
    ]
    (tmp_path / "in").write_text("\n".join(lines) + "\n")
    bulk = Bulk()
    await run(task(tmp_path, JsonLines(Columns("card", "ctx", "ad"))), bulk)
    written = (tmp_path / "out").read_text().splitlines()
    assert written[0] == (
        '{"id":18446744073709551617,"card":"new1","x":1.50,"ctx":"Y3R4","ad":"YWQ="}'
    )
    assert written[1:4] == lines[1:4]
    assert json.loads(written[4]) == {"card": "new1", "id": 4}
    assert [(i.ciphertext, i.context, i.associated_data) for i in bulk.asked] == [
        ("old1", b"ctx", b"ad"),
        ("old1", b"", b""),
    ]


async def test_json_lines_keep_their_ends(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"card":"old1"}\r\n{"card":"old2"}')
    await run(task(tmp_path, JsonLines(Columns("card"))), Bulk())
    assert (tmp_path / "out").read_bytes() == b'{"card":"new1"}\r\n{"card":"new2"}'


async def test_csv(tmp_path: Path) -> None:
    rows = [
        ["id", "card", "note"],
        ["1", "old1", 'says "yes"; no'],
        ["2", "", "two\nlines"],
        ["3", "old3", "ü"],
    ]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerows(rows)
    (tmp_path / "in").write_bytes(text.getvalue().encode())
    await run(task(tmp_path, Csv(Columns("card"), ";")), Bulk())
    assert (tmp_path / "out").read_bytes() == text.getvalue().replace("old", "new").encode()


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        (Lines(), "old1\nöld2\n", "line 2: is no ciphertext"),
        (JsonLines(Columns("c")), '{"c": "old1"}\n[1]\n', "line 2: "),
        (JsonLines(Columns("c")), '{"c": "old1"}\n{"c": 7}\n', "line 2: "),
        (JsonLines(Columns("c", "x")), '{"c": "old1"}\n{"c": "old2", "x": "?"}\n', "base64"),
        (Csv(Columns("c")), "a,c\n1,old1\n2\n", "record 2: has 1 fields only"),
        (Csv(Columns("c")), 'a,c\n1,old1\n2,"x"y\n', "record 2: "),
    ],
)
async def test_a_malformed_record_is_named_and_what_came_before_is_kept(
    tmp_path: Path, form: Format, text: str, says: str
) -> None:
    (tmp_path / "in").write_text(text)
    with pytest.raises(FormatError, match=says):
        await run(task(tmp_path, form), Bulk())
    assert not (tmp_path / "out").exists()
    assert "new1" in (tmp_path / "out.rewrap.partial").read_text()


async def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a,b\n")
    with pytest.raises(FormatError, match="no column 'c', but a, b"):
        await run(task(tmp_path, Csv(Columns("c"))), Bulk())


async def test_what_fails_stays_as_it_is_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("old1\nbad\nold3\n")
    progress = await run(task(tmp_path, Lines()), Bulk())
    assert (tmp_path / "out").read_text() == "new1\nbad\nnew3\n"
    assert progress.failed == 1
    (line,) = (tmp_path / "out.rewrap.errors").read_text().splitlines()
    assert json.loads(line) == {"record": 2, "error": "invalid ciphertext: no prefix"}
    assert left_over(tmp_path) == {"out.rewrap.errors"}


FORMS: list[tuple[Format, str, str]] = [
    (Lines(), "", "{}{}\n"),
    (JsonLines(Columns("c")), "", '{{"n":{1},"c":"{0}{1}"}}\n'),
    (Csv(Columns("c")), "n,c\n", '{1},{0}{1}\n"two\n{1}",\n'),
]


@pytest.mark.parametrize(("form", "head", "line"), FORMS)
@pytest.mark.parametrize("in_place", [False, True])
async def test_it_goes_on_wherever_it_was_interrupted(
    tmp_path: Path, form: Format, head: str, line: str, in_place: bool
) -> None:
    (tmp_path / "in").write_text(head + "".join(line.format("old", n) for n in range(30)))
    target = "in" if in_place else "out"
    calls = 0
    while True:
        calls += 1
        bulk = Bulk(ends_behind=7)
        try:
            await run(task(tmp_path, form, target=target), bulk)
            break
        except InterruptedError:
            # What a crash leaves of a write that was not followed by the note of it.
            with (tmp_path / f"{target}.rewrap.partial").open("ab") as partial:
                partial.write(b"half a rec")
    assert calls == 5
    wanted = head + "".join(line.format("new", n) for n in range(30))
    assert (tmp_path / target).read_text() == wanted
    assert left_over(tmp_path) == set()


async def crash_at_the_end(task: Task, monkeypatch: pytest.MonkeyPatch, *, renamed: bool) -> None:
    """Does all of a task but to give the new file its place, or but to remove the note behind that."""
    replace = os.replace

    def crash(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            if renamed:
                replace(source, target)
            raise InterruptedError
        replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(InterruptedError):
        patch.setattr(os, "replace", crash)
        await run(task, Bulk())


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("target", ["in", "out"])
async def test_a_crash_at_the_very_end_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, renamed: bool
) -> None:
    (tmp_path / "in").write_text("old1\nbad\nold2\n")
    renaming = task(tmp_path, Lines(), target=target)
    await crash_at_the_end(renaming, monkeypatch, renamed=renamed)
    bulk = Bulk()
    progress = await run(renaming, bulk)
    assert len(bulk.asked) == (3 if renamed else 0)
    assert (progress.records, progress.failed) == (3, 1)
    assert (tmp_path / target).read_text() == "new1\nbad\nnew2\n"
    assert left_over(tmp_path) == {f"{target}.rewrap.errors"}


async def test_what_a_crash_left_behind_the_end_of_a_job_is_not_taken_for_the_end_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("old1\n")
    await crash_at_the_end(task(tmp_path, Lines()), monkeypatch, renamed=True)
    (tmp_path / "other").write_text("old2\nold3\n")
    progress = await run(task(tmp_path, Lines(), source="other"), Bulk())
    assert progress.records == 2
    assert (tmp_path / "out").read_text() == "new2\nnew3\n"


async def test_another_job_does_not_go_on_from_here(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("old1\nold2\n")
    with pytest.raises(InterruptedError):
        await run(task(tmp_path, Lines()), Bulk(ends_behind=1))
    (tmp_path / "in").write_text("old1\nold2\nold3\n")
    with pytest.raises(JobError, match="the input has changed"):
        await run(task(tmp_path, Lines()), Bulk())
    assert not (tmp_path / "out").exists()
    (tmp_path / "out.rewrap.json").unlink()
    await run(task(tmp_path, Lines()), Bulk())
    assert (tmp_path / "out").read_text() == "new1\nnew2\nnew3\n"


async def test_a_partial_file_that_was_cut_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("old1\nold2\n")
    with pytest.raises(InterruptedError):
        await run(task(tmp_path, Lines()), Bulk(ends_behind=1))
    (tmp_path / "out.rewrap.partial").write_bytes(b"")
    with pytest.raises(JobError, match="has been changed"):
        await run(task(tmp_path, Lines()), Bulk())
    (tmp_path / "out.rewrap.json").write_text("{")
    with pytest.raises(JobError, match="cannot be read"):
        await run(task(tmp_path, Lines()), Bulk())


async def test_two_at_once_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("old1\n")
    seen: list[str] = []

    class Second(Bulk):
        async def rewrap(self, name: str, items: Any, *, key_version: int) -> Any:
            with pytest.raises(JobError, match="another process"):
                await run(task(tmp_path, Lines()), Bulk())
            seen.append("refused")
            async for each in super().rewrap(name, items, key_version=key_version):
                yield each

    await run(task(tmp_path, Lines()), Second())
    assert seen == ["refused"]

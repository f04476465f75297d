"""The job: records through a stream, into a new file that takes its place at once and whole.

Beside the output stand, while the job runs, what is written so far (`.rewrap.partial`) and how far that is
(`.rewrap.json`), written in this order and both with fsync. A job that ended in between, however, goes on where the
second says; what the first has beyond that is cut off.
"""

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from strongroom.transit.v1 import stream_pb2
from strongroom_cli.rewrap.records import Format, FormatError, Record
from strongroom_client.bulk import BulkTransit
from strongroom_runtime.files import sync_folder, write_whole

_CHECKPOINT_SECONDS = 0.2


class JobError(Exception):
    """The job cannot go on. The text says why, and what to do."""


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """How far a job is.

    Args:
        task: what is done to what: another task cannot go on from here.
        records: done.
        failed: of these.
        read: bytes of the input that are done.
        written: bytes of the partial file that are good.
        told: bytes of the file of errors that are good.
        complete: all is done but to rename the file.
    """

    task: dict[str, str]
    records: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0
    told: int = 0
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done.

    Args:
        source: the file with ciphertexts.
        target: the file to make; may be the same.
        format: of both.
        key: whose ciphertexts they are.
        key_version: to encrypt with; 0 for the newest.
        said: what else tells this task from others.
    """

    source: Path
    target: Path
    format: Format
    key: str
    key_version: int
    said: dict[str, str]

    def beside(self, suffix: str) -> Path:
        """Returns a file beside the target."""
        return self.target.with_name(f"{self.target.name}.{suffix}")

    def fingerprint(self) -> dict[str, str]:
        """Returns what must be the same for a job to go on."""
        status = self.source.stat()
        return {
            **self.said,
            "source": f"{self.source.resolve()} {status.st_size} {status.st_mtime_ns}",
            "key": self.key,
            "key_version": str(self.key_version),
        }


async def run(task: Task, bulk: BulkTransit, moved: Callable[[int], None]) -> Progress:
    """Does a task, or goes on with it; returns how it ended.

    Args:
        task: what to do.
        bulk: the keys.
        moved: is told how many bytes of the input are done.

    Raises:
        JobError: what is there belongs to another task, or another process is at it.
        FormatError: the input is malformed.
        grpc.aio.AioRpcError: the platform refuses.
    """
    with _locked(task):
        progress = _progress(task)
        if not progress.complete:
            try:
                with contextlib.ExitStack() as stack:
                    files = _Files(task, progress, stack)
                    await _rewrap(task, bulk, files, moved)
            except Exception:
                if not progress.records:
                    _forget(task)
                raise
        os.replace(task.beside("rewrap.partial"), task.target)
        sync_folder(task.target.parent)
        task.beside("rewrap.json").unlink()
        return progress


class _Files:
    """The input, and what is written beside the target."""

    def __init__(self, task: Task, progress: Progress, stack: contextlib.ExitStack) -> None:
        self.progress = progress
        self._task = task
        self.source = stack.enter_context(task.source.open("rb"))
        header = task.format.begin(self.source)
        self._partial = stack.enter_context(_continued(task, "rewrap.partial", progress.written))
        self._errors = stack.enter_context(_continued(task, "rewrap.errors", progress.told))
        if progress.records:
            self.source.seek(progress.read)
        else:
            self._partial.write(header)
            os.fchmod(self._partial.fileno(), task.source.stat().st_mode & 0o777)
        self._saved = time.monotonic()

    def put(self, record: Record, ciphertext: str, error: str) -> None:
        """Writes a record; one that failed stays as it was."""
        self._partial.write(self._task.format.written(record, ciphertext))
        self.progress.records, self.progress.read = record.number, record.end
        if error:
            self.progress.failed += 1
            line = msgspec.json.encode({"record": record.number, "error": error})
            self._errors.write(line + b"\n")
        if time.monotonic() - self._saved > _CHECKPOINT_SECONDS:
            self.save()

    def save(self, *, complete: bool = False) -> None:
        """Makes what was written last, and says how far that is."""
        for file in (self._partial, self._errors):
            file.flush()
            os.fsync(file.fileno())
        self.progress.written, self.progress.told = self._partial.tell(), self._errors.tell()
        self.progress.complete = complete
        write_whole(self._task.beside("rewrap.json"), msgspec.json.encode(self.progress))
        self._saved = time.monotonic()
        if complete and not self.progress.failed:
            self._task.beside("rewrap.errors").unlink()


async def _rewrap(
    task: Task, bulk: BulkTransit, files: _Files, moved: Callable[[int], None]
) -> None:
    waiting: deque[Record] = deque()
    malformed: list[FormatError] = []

    async def items() -> AsyncIterator[Any]:
        records = task.format.records(files.source, files.progress.records + 1)
        try:
            for record in records:
                waiting.append(record)
                if record.ciphertext:
                    yield stream_pb2.DecryptStreamItem(
                        ciphertext=record.ciphertext,
                        context=record.context,
                        associated_data=record.associated_data,
                    )
        except FormatError as error:
            malformed.append(error)  # what came before it is done first

    before = files.progress.read
    moved(before)

    def pass_over() -> None:
        while waiting and not waiting[0].ciphertext:
            files.put(waiting.popleft(), "", "")

    async for result in bulk.rewrap(task.key, items(), key_version=task.key_version):
        pass_over()
        files.put(waiting.popleft(), result.ciphertext, result.error)
        if files.progress.read - before > 1 << 16:
            moved(files.progress.read - before)
            before = files.progress.read
    pass_over()
    moved(files.progress.read - before)
    files.save(complete=not malformed)
    if malformed:
        raise malformed[0]


def _progress(task: Task) -> Progress:
    place, partial = task.beside("rewrap.json"), task.beside("rewrap.partial")
    fingerprint = task.fingerprint()
    try:
        progress = msgspec.json.decode(place.read_bytes(), type=Progress)
    except FileNotFoundError:
        return _begun(task, fingerprint)
    except msgspec.MsgspecError:
        raise JobError(f"{place}: cannot be read; remove it to begin anew") from None
    if progress.complete and not partial.exists():
        # The new file has its place already. Of which job, and whether it is still that file, cannot be told where it
        # took the place of its input; to rewrap once more does no harm.
        return _begun(task, fingerprint)
    if progress.task != fingerprint:
        raise JobError(
            f"{place}: belongs to another job, or the input has changed since; remove it to begin anew"
        )
    if partial.stat().st_size < progress.written if partial.exists() else progress.records:
        raise JobError(f"{partial}: has been changed; remove {place} to begin anew")
    return progress


def _begun(task: Task, fingerprint: dict[str, str]) -> Progress:
    progress = Progress(fingerprint)
    write_whole(task.beside("rewrap.json"), msgspec.json.encode(progress))
    return progress


def _forget(task: Task) -> None:
    """Removes what stands beside the target: nothing was done yet, and the next command may well be another one."""
    for suffix in ("rewrap.json", "rewrap.partial", "rewrap.errors"):
        task.beside(suffix).unlink(missing_ok=True)


def _continued(task: Task, suffix: str, size: int) -> BinaryIO:
    """Opens a file to write on where it was good."""
    file = os.fdopen(os.open(task.beside(suffix), os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    file.truncate(size)
    file.seek(size)
    return file


@contextlib.contextmanager
def _locked(task: Task) -> Iterator[None]:
    """Keeps other processes from the same input. The lock goes with the process."""
    with task.source.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(f"{task.source}: another process is rewrapping it") from None
        yield

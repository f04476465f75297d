"""Appends audit entries to a file: acknowledged when written, many in one write, in a hash chain.

All entries that are ready in one turn of the event loop go in one write; while requests come one by one, each is
written at once instead. A lock on the file is held meanwhile, so that several processes can share it and a write that
failed half-way can be cut off again. What was not written is reported to whoever asked (fail closed), and the next
write starts on a line of its own.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import secrets
from pathlib import Path

from strongroom_audit.domain.chain import Chain
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.timestamps import rfc3339

_MODE = 0o600

_Group = list[tuple[tuple[bytes, ...], asyncio.Future[None]]]


class FileWriter:
    """One audit file, as one process writes it.

    Args:
        path: the file; created with mode 0600 where missing. Its folder must exist.
        sync_always: acknowledge only what is on the disk (one fsync for each group); else what is with the
            operating system.

    Raises:
        ServiceError: INVALID where the file cannot be opened.
    """

    def __init__(
        self, path: Path, *, sync_always: bool = False, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._sync_always = sync_always
        self._clock = clock or SystemClock()
        self._descriptor = _open(path)
        self._waiting: _Group = []
        self._scheduled = False
        self._one_by_one = True  # the last turns had one append each
        self._flusher: asyncio.Task[None] | None = None  # where the disk is waited for
        self._dirty = False
        self._begin("")

    async def append(self, *entries: bytes) -> None:
        """Returns when entries (JSON objects, without newlines) are written, one after another.

        Entries once taken are written even if the caller is cancelled.

        Raises:
            ServiceError: UNAVAILABLE where they could not be written.
        """
        loop = asyncio.get_running_loop()
        if not self._scheduled and not self._sync_always:
            self._scheduled = True
            loop.call_soon(self._flush)
            if self._one_by_one and not self._waiting:
                self._write_now(entries)
                return
        future = loop.create_future()
        self._waiting.append((entries, future))
        if self._sync_always and self._flusher is None:
            self._flusher = loop.create_task(self._flush_and_sync())
        await future

    async def reopen(self) -> None:
        """Opens the path anew, after the file was moved away; the new file names the old one's last hash."""
        await self._drain()
        descriptor = _open(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._begin(self._chain.prev)

    async def sync(self) -> None:
        """Brings to the disk what was written since the last time."""
        if self._dirty:
            self._dirty = False
            await asyncio.to_thread(os.fsync, self._descriptor)

    async def close(self) -> None:
        """Writes what waits, syncs and closes."""
        await self._drain()
        await self.sync()
        os.close(self._descriptor)

    def discard(self) -> None:
        """Closes a writer that nothing was appended to."""
        os.close(self._descriptor)

    def _begin(self, after: str) -> None:
        """Starts a chain; its first entry is written with the first group."""
        self._end = 0
        self._chain = Chain(secrets.token_hex(8))
        self._first = [self._chain.start_entry(rfc3339(self._clock.now()), after)]

    async def _drain(self) -> None:
        """Writes what waits."""
        while self._flusher is not None:
            await asyncio.shield(self._flusher)
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        group, self._waiting = self._waiting, []
        if not group:
            return  # written already: at once, or before the file was changed or closed
        self._one_by_one = not self._one_by_one and len(group) == 1
        error = self._write_group([entries for entries, _ in group])
        if error is None:
            self._dirty = True
        _settle(group, error)

    def _write_now(self, entries: tuple[bytes, ...]) -> None:
        error = self._write_group([entries])
        if error is not None:
            raise error
        self._dirty = True

    async def _flush_and_sync(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                error = self._write_group([entries for entries, _ in group])
                if error is None:
                    try:
                        await asyncio.to_thread(os.fsync, self._descriptor)
                    except OSError as reason:
                        error = _cannot_write(reason)
                _settle(group, error)
        finally:
            self._flusher = None

    def _write_group(self, group: list[tuple[bytes, ...]]) -> ServiceError | None:
        linked = self._chain.link(itertools.chain(self._first, *group))
        try:
            self._end = _write(self._descriptor, linked.data, self._end)
        except OSError as error:
            return _cannot_write(error)
        # From here the lines are in the file, whatever becomes of an fsync.
        self._chain, self._first = linked.chain, []
        return None


def _settle(group: _Group, error: ServiceError | None) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error) if error else future.set_result(None)


def _cannot_write(error: OSError) -> ServiceError:
    return ServiceError(Kind.UNAVAILABLE, f"the audit file cannot be written: {error.strerror}")


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, _MODE)
    except OSError as error:
        raise ServiceError(
            Kind.INVALID, f"file_path: the audit file cannot be opened: {error.strerror}"
        ) from error


def _write(descriptor: int, data: bytes, end: int) -> int:
    """Appends all of it, or nothing; returns the size of the file.

    Args:
        descriptor: the file.
        data: whole lines.
        end: the size that it had after this process's last write.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        size = os.fstat(descriptor).st_size
        # Another process may have been killed in the middle of a line.
        torn = size not in (0, end) and os.pread(descriptor, 1, size - 1) != b"\n"
        view = memoryview(b"\n" + data if torn else data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
        return size + torn + len(data)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

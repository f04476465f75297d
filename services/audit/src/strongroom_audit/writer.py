"""Appends audit entries to a file: acknowledged when written, many in one write, in a hash chain.

All entries that are ready in one turn of the event loop go in one write; while requests come one by one, each is
written at once instead. A lock on the file is held meanwhile, so that several processes can share it and a write that
failed half-way can be cut off again. What was not written is reported to whoever asked (fail closed), and the next
write starts on a line of its own.

Requests pay for no signature: a chain is sealed in the background, which the log does every second. Only where that
is late does a seal go with a write.
"""

import asyncio
import contextlib
import fcntl
import itertools
import math
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from strongroom_audit.domain.chain import CONTINUE, END, SEAL, START, Chain, Linked
from strongroom_audit.domain.keys import Signs
from strongroom_audit.domain.scanning import Head, OpenChains
from strongroom_audit.presence import claim, is_gone
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.files import sync_folder
from strongroom_runtime.timestamps import rfc3339

_MODE = 0o600
# After which unsealed entries take a seal with them, whatever keeps the background.
_LATE_SECONDS = 3.0
# How far back, and how many chains, are looked at for what others wrote.
_TAIL_BYTES, _MOST_SEEN = 4 << 20, 100

_Group = list[tuple[tuple[bytes, ...], asyncio.Future[None]]]


class FileWriter:
    """One audit file, as one process writes it.

    Args:
        path: the file; created with mode 0600 where missing. Its folder must exist.
        key: returns the key that seals the chain.
        device: the path of the device that it is for.
        sync_always: acknowledge only what is on the disk (one fsync for each group); else what is with the
            operating system.
        clock: of the process.

    Raises:
        ServiceError: INVALID where the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        key: Callable[[], Signs],
        *,
        device: str = "",
        sync_always: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.path = path
        self.device = device
        self._key = key
        self._sync_always = sync_always
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self._descriptor = _open(path)
        self._end = 0
        self._chain = self.synced = Chain("")
        self._begin()
        self._changing = asyncio.Lock()  # what waits for the disk, and what changes the file
        self._is_new = True  # its folder may not have it on the disk yet
        self._witnessed = False
        self._waiting: _Group = []
        self._scheduled = False
        self._one_by_one = True  # the last turns had one append each
        self._flusher: asyncio.Task[None] | None = None  # where the disk is waited for
        self._dirty = False

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
        try:
            await future
        finally:
            del future  # it keeps an error, and the error's traceback this frame: a cycle

    async def reopen(self) -> None:
        """Opens the path anew, after the file was moved away; the chain goes on in the new file.

        Raises:
            ServiceError: INVALID; the old file stays.
        """
        async with self._changing:
            await self._try_witness()
            await self._drain()  # and from here to the change of files nothing else runs
            descriptor = _open(self.path)
            if _is_same(descriptor, self._descriptor):
                os.close(descriptor)
                return
            self._claim(descriptor)
            self.seal()
            old, written = self._descriptor, self._chain
            self._descriptor, self._end, self._is_new = descriptor, 0, True
            self._witnessed = False
            if written.seq:
                self._first = CONTINUE
            try:
                await asyncio.to_thread(os.fsync, old)
                self.synced = written
            finally:
                os.close(old)

    def seal(self) -> None:
        """Seals what was written since the last time. What cannot be written now is sealed the next time."""
        if self._chain.seq > self._sealed:
            self._write_signed((), SEAL)

    async def witness(self) -> None:
        """Seals, once in each file, where the other chains in it stand: those of killed processes nobody else seals.

        Raises:
            OSError: the file cannot be read or brought to the disk.
        """
        if not self._witnessed:
            async with self._changing:
                await self._witness()

    async def sync(self) -> None:
        """Brings to the disk what was written since the last time; `synced` is the chain as far as it is there.

        Raises:
            OSError: it cannot be brought there.
        """
        async with self._changing:
            await self._sync()

    async def close(self) -> None:
        """Writes what waits, ends the chain, syncs and closes."""
        async with self._changing:
            await self._try_witness()
            await self._drain()
            if self._chain.seq:
                self.ended = self._write_signed((), END) is None
            try:
                await self._sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1  # the number may soon be another file's

    def discard(self) -> None:
        """Closes a writer that nothing was appended to."""
        os.close(self._descriptor)

    async def _witness(self) -> None:
        if self._witnessed or self._first:
            return
        seen = await asyncio.to_thread(_heads, self._descriptor)
        seen.pop(self._chain.writer, None)
        self._witnessed = not seen or self._write_signed((), SEAL, seen=seen) is None

    async def _try_witness(self) -> None:
        with contextlib.suppress(OSError):
            await self._witness()

    async def _sync(self) -> None:
        if self._dirty:
            self._dirty = False
            written = self._chain
            await asyncio.to_thread(os.fsync, self._descriptor)
            if self._is_new:
                await asyncio.to_thread(sync_folder, self.path.parent)
                self._is_new = False
            self.synced = written

    def _begin(self) -> None:
        """Starts a chain; its first entry is written with the first group."""
        self._chain = self.synced = Chain(secrets.token_hex(8))
        self.began = ""  # when the first entry was made, RFC 3339
        self._first = START  # the type of the entry that comes before all others; empty for none
        self._certified = ""  # the key whose certificate stands in the chain
        self.ended = False  # its last entry is written
        self._sealed = 0  # how many entries are sealed
        self._seal_by = math.inf
        self._claim(self._descriptor)

    def _claim(self, descriptor: int) -> None:
        """Shows others that the chain goes on in a file, where its file system knows how to."""
        with contextlib.suppress(OSError):
            claim(descriptor, self._chain.writer)

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
        _settle(group, self._write_group([entries for entries, _ in group]))

    def _write_now(self, entries: tuple[bytes, ...]) -> None:
        error = self._write_group([entries])
        if error is not None:
            raise error.again()  # not itself: its traceback would have this frame, which has it

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
        now = self._monotonic()
        entries = itertools.chain(*group)
        if self._first or now >= self._seal_by:
            return self._write_signed(entries, SEAL if now >= self._seal_by else "")
        error = self._write_lines(self._chain.link(entries))
        if self._seal_by == math.inf:
            self._seal_by = now + _LATE_SECONDS
        return error

    def _write_signed(
        self, entries: Iterable[bytes], last: str, **about: Any
    ) -> ServiceError | None:
        """Writes entries, behind the first of the chain or the file where that is to come, and before a seal.

        Args:
            entries: JSON objects.
            last: the type of the seal; empty for none.
            about: what it says besides.
        """
        try:
            key = self._key()
        except ServiceError as reason:
            return reason
        time, data, sealed = rfc3339(self._clock.now()), b"", self._sealed
        chain, certified = self._chain, self._certified
        if self._first:
            opening = chain.seal(
                self._first, time, key, device=self.device, certificate=key.certificate
            )
            data, chain, certified = opening.data, opening.chain, key.public
            sealed = chain.seq
        linked = chain.link(entries)
        data, chain = data + linked.data, linked.chain
        if last:
            if certified != key.public:
                about["certificate"] = key.certificate
            closing = chain.seal(last, time, key, **about)
            data, chain = data + closing.data, closing.chain
            sealed = chain.seq
        error = self._write_lines(Linked(data, chain))
        if error is None:
            self.began = self.began or time
            self._first, self._certified, self._sealed = "", key.public, sealed
            late = self._monotonic() + _LATE_SECONDS
            self._seal_by = late if chain.seq > sealed else math.inf
        return error

    def _write_lines(self, linked: Linked) -> ServiceError | None:
        """Writes lines that follow upon the chain as it stands."""
        try:
            self._end = _write(self._descriptor, linked.data, self._end)
        except _HalfWrittenError as error:
            self._begin()  # the same numbers must not stand there twice
            return _cannot_write(error)
        except OSError as error:
            return _cannot_write(error)
        # From here the lines are in the file, whatever becomes of an fsync.
        self._chain, self._dirty = linked.chain, True
        return None


def _settle(group: _Group, error: ServiceError | None) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error.again()) if error else future.set_result(None)


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
            _cut_off(descriptor, size)
            raise
        return size + torn + len(data)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _heads(descriptor: int) -> dict[str, Head]:
    """Returns where the chains stand that have entries towards the end of a file; those are then on the disk."""
    # Another description of it, whose lock nobody else in this process gives back.
    reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        chains = OpenChains()
        size = os.fstat(reading).st_size
        begin = max(0, size - _TAIL_BYTES)
        lines = _read_from(reading, begin)
        chains.read(lines[1 if begin else 0 :])  # the first may be half a line
        gone = {writer for writer in chains.signing if is_gone(reading, writer)}
        # What they wrote before they went, while the lines were looked at. After that they write nothing.
        chains.read(_read_from(reading, begin + sum(map(len, lines)) + len(lines)))
        os.fsync(reading)
    finally:
        os.close(reading)
    return dict(list(chains.heads(gone).items())[-_MOST_SEEN:])


def _read_from(descriptor: int, begin: int) -> list[bytes]:
    """Returns the lines of a file that are written to their end, without their newlines."""
    # What others are writing just now may yet be cut off again.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        data = os.pread(descriptor, os.fstat(descriptor).st_size - begin, begin)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return data.split(b"\n")[:-1]


def _cut_off(descriptor: int, size: int) -> None:
    """Takes away what a failed write left behind.

    Raises:
        _HalfWrittenError: it stays.
    """
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        raise _HalfWrittenError(error.errno, error.strerror) from error


class _HalfWrittenError(OSError):
    """Some lines of a write may be in the file, and cannot be taken out."""


def _is_same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))

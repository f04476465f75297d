"""The open audit files of this process."""

import asyncio
import contextlib
import logging
import math
from pathlib import Path

from strongroom_audit.config import Config
from strongroom_audit.devices import Device, DeviceStore
from strongroom_audit.domain.keys import SigningKey
from strongroom_audit.keys import SigningKeys
from strongroom_audit.register import ChainRecord, ChainRegister
from strongroom_audit.writer import FileWriter
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.timestamps import rfc3339

log = logging.getLogger(__name__)


class AuditLog:
    """Appends entries to the devices that are enabled, and keeps their chains sealed and registered."""

    def __init__(
        self,
        devices: DeviceStore,
        config: Config,
        clock: Clock,
        keys: SigningKeys,
        register: ChainRegister,
    ) -> None:
        self._devices = devices
        self._config = config
        self._clock = clock
        self._keys = keys
        self._register = register
        # By path and salt: a device that is enabled anew at a path is another one.
        self._writers: dict[tuple[str, bytes], FileWriter] = {}
        self._recorded: dict[str, tuple[int, float]] = {}  # entries and when, by chain
        self._ended: list[ChainRecord] = []  # chains whose end is not recorded yet
        self._failing: dict[str, str] = {}  # what was said of devices that take no entries, by path
        self._looking = Repeated("the looking for the newest key of seals", logging.WARNING)
        self._sealing = Repeated("the sealing of audit files", logging.ERROR)
        self._syncing = Repeated("the syncing of audit files", logging.ERROR)
        self._ending = Repeated("the closing of audit files that are disabled", logging.WARNING)
        self._recording = Repeated("the recording of chains", logging.WARNING)

    def try_open(self, file: Path) -> None:
        """Raises unless a file can be written, before a device with it is enabled.

        Raises:
            ServiceError: INVALID.
        """
        FileWriter(file, self._key, clock=self._clock).discard()

    async def append(self, entries: list[tuple[str, bytes]]) -> None:
        """Writes (device path, JSON) entries; returns once at least one device has all of its own.

        Raises:
            ServiceError: UNAVAILABLE where every device failed.
        """
        devices = await self._devices.current()
        by_device: dict[str, list[bytes]] = {}
        for path, entry in entries:
            if path in by_device:
                by_device[path].append(entry)
            elif path in devices:  # it may have been disabled since the entry was made
                by_device[path] = [entry]
        if not by_device:
            if devices:
                raise ServiceError(Kind.UNAVAILABLE, "the audit devices were changed; try again")
            return
        if len(by_device) == 1:
            ((path, group),) = by_device.items()
            await self._write(devices[path], path, group)
            return
        results = await asyncio.gather(
            *(self._write(devices[path], path, group) for path, group in by_device.items()),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if len(failures) == len(results):
            del results  # an error that is raised keeps this frame: with these, a cycle
            raise failures.pop(0)

    async def reopen(self) -> None:
        """Opens all files anew, after they were moved away."""
        for writer in list(self._writers.values()):
            try:
                await writer.reopen()
            except (OSError, ServiceError) as error:
                log.error("an audit file cannot be opened anew", extra={"reason": str(error)})

    async def keep_sealed(self) -> None:
        """Seals what was written. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._config.seal_seconds)
            with self._looking.turn():  # where etcd is away, the one before is as good for a while
                await self._keys.refresh()
            with self._sealing.turn():
                for writer in self._writers.values():
                    writer.seal()

    async def keep_synced(self) -> None:
        """Brings files to the disk, and records how far they are there. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._config.sync_seconds)
            with self._ending.turn():
                await self._end_disabled()
            for writer in list(self._writers.values()):
                with self._syncing.turn(writer):
                    await writer.sync()
                    await writer.witness()
            self._syncing.only(self._writers.values())
            with self._recording.turn():
                await self._record()

    async def close(self) -> None:
        """Writes what waits, ends all chains and closes their files."""
        writers, self._writers = list(self._writers.values()), {}
        for writer in writers:
            await self._end(writer)
        # Where there are no keys any more, or no etcd, it is done when this process has them again. Where it never
        # has, the register says less than the file, which is not held against it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.ending_seconds):
                await self._record_ended()

    async def _end(self, writer: FileWriter) -> None:
        try:
            await writer.close()
        except OSError as error:
            log.error("an audit file cannot be synced", extra={"errno": error.errno or 0})
        if writer.synced.seq:
            self._ended.append(self._record_of(writer, ended=writer.ended))
        self._recorded.pop(writer.synced.writer, None)

    async def _end_disabled(self) -> None:
        """Ends the chains of devices that are no more, and closes their files."""
        devices = await self._devices.current()
        enabled = {(path, device.salt) for path, device in devices.items()}
        for key in self._writers.keys() - enabled:
            await self._end(self._writers.pop(key))

    async def _record(self) -> None:
        """Records the chains that went on since the last time."""
        await self._record_ended()
        now = self._clock.monotonic()
        for writer in list(self._writers.values()):
            chain = writer.synced
            entries, when = self._recorded.get(chain.writer, (0, -math.inf))
            if chain.seq > entries and now >= when + self._config.record_seconds:
                record = self._record_of(writer)
                with self._recording.turn(record.writer):
                    await self._register.record(record)
                    self._recorded[chain.writer] = (record.entries, now)

    async def _record_ended(self) -> None:
        while self._ended:
            with self._recording.turn(self._ended[0].writer):
                await self._register.record(self._ended[0])
                self._ended.pop(0)
                continue
            return

    def _record_of(self, writer: FileWriter, *, ended: bool = False) -> ChainRecord:
        chain = writer.synced
        return ChainRecord(
            writer=chain.writer,
            device=writer.device,
            file=str(writer.path),
            began=writer.began,
            entries=chain.seq,
            hash=chain.prev,
            recorded=rfc3339(self._clock.now()),
            ended=ended,
        )

    def _key(self) -> SigningKey:
        return self._keys.current

    async def _write(self, device: Device, path: str, entries: list[bytes]) -> None:
        try:
            await self._writer(device, path).append(*entries)
        except Exception as error:
            self._note(device, path, error)
            raise
        if self._failing and self._failing.pop(path, ""):
            log.info("an audit device takes entries again", extra={"device": path})

    def _note(self, device: Device, path: str, error: Exception) -> None:
        """Says why a device takes no entries: once, not with each request that is refused for it."""
        if isinstance(error, ServiceError):
            if error.kind is Kind.SEALED:
                return
            reason = error.message
        else:
            reason = type(error).__name__
        if self._failing.get(path) != reason:
            self._failing[path] = reason
            about = {"device": path, "file": str(self._devices.file(device)), "reason": reason}
            log.error("an audit device takes no entries", extra=about)

    def _writer(self, device: Device, path: str) -> FileWriter:
        """Returns what writes to the file of a device.

        Raises:
            ServiceError: UNAVAILABLE where the file cannot be opened.
        """
        key = (path, device.salt)
        writer = self._writers.get(key)
        if writer is None:
            try:
                writer = FileWriter(
                    self._devices.file(device),
                    self._key,
                    device=path,
                    sync_always=device.sync_always,
                    clock=self._clock,
                )
            except ServiceError as error:
                raise ServiceError(Kind.UNAVAILABLE, error.message) from error
            self._writers[key] = writer
        return writer

"""The open audit files of this process."""

import asyncio
import logging
from pathlib import Path

from strongroom_audit.config import Config
from strongroom_audit.devices import Device, DeviceStore
from strongroom_audit.writer import FileWriter
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError

log = logging.getLogger(__name__)


class AuditLog:
    """Appends entries to the devices that are enabled."""

    def __init__(self, devices: DeviceStore, config: Config, clock: Clock) -> None:
        self._devices = devices
        self._config = config
        self._clock = clock
        self._writers: dict[tuple[str, str], FileWriter] = {}

    def try_open(self, file: Path) -> None:
        """Raises unless a file can be written, before a device with it is enabled.

        Raises:
            ServiceError: INVALID.
        """
        FileWriter(file, clock=self._clock).discard()

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
            await self._writer(devices[path], path).append(*group)
            return
        results = await asyncio.gather(
            *(self._write(devices[path], path, group) for path, group in by_device.items()),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            log.error("an audit device failed", extra={"error": type(failure).__name__})
        if len(failures) == len(results):
            raise failures[0]

    async def reopen(self) -> None:
        """Opens all files anew, after they were moved away."""
        for writer in list(self._writers.values()):
            await writer.reopen()

    async def keep_synced(self) -> None:
        """Brings files to the disk in the background. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._config.sync_seconds)
            for writer in list(self._writers.values()):
                try:
                    await writer.sync()
                except OSError as error:
                    log.error("an audit file cannot be synced", extra={"errno": error.errno or 0})

    async def close(self) -> None:
        """Writes what waits and closes all files."""
        writers, self._writers = list(self._writers.values()), {}
        for writer in writers:
            await writer.close()

    async def _write(self, device: Device, path: str, entries: list[bytes]) -> None:
        await self._writer(device, path).append(*entries)

    def _writer(self, device: Device, path: str) -> FileWriter:
        """Returns what writes to the file of a device.

        Raises:
            ServiceError: UNAVAILABLE where the file cannot be opened.
        """
        key = (path, device.file)
        writer = self._writers.get(key)
        if writer is None:
            try:
                writer = FileWriter(
                    Path(device.file), sync_always=device.sync_always, clock=self._clock
                )
            except ServiceError as error:
                raise ServiceError(Kind.UNAVAILABLE, error.message) from error
            self._writers[key] = writer
        return writer

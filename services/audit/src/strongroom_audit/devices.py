"""Audit devices: where they are kept, and what the API may make.

A client must never be able to write a file of its choice: the file's name has to lie below the configured folder,
its mode is fixed, and nothing of the client's stands in it but HMACs.
"""

import contextlib
import os
from pathlib import Path as FilePath

import msgspec

from strongroom_audit.config import Config
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.record import Record
from strongroom_runtime.requests import check_length
from strongroom_runtime.storage import ConflictError, Entry, Path, Plain, Store, Transaction
from strongroom_runtime.text_hash import TextHash

_DEVICES: Path = (Plain("devices"),)
_MOST_OPTION_CHARACTERS = 4_096  # as many as a path has in Linux
_OPTIONS = {"file_path", "path", "sync", "mode", "log_raw", "hmac_accessor", "format", "prefix"}


class Device(msgspec.Struct, frozen=True):
    """One device."""

    type: str
    file: str  # a name alone is one in the folder that each process was given
    salt: bytes
    description: str = ""
    sync_always: bool = False
    local: bool = False
    plain_accessors: bool = False
    options: dict[str, str] = {}  # as they were given, which is how they are shown

    def __repr__(self) -> str:
        return f"Device({self.type}, {self.file})"

    def hash(self, text: str) -> str:
        """Returns what a text looks like in its entries."""
        return TextHash(self.salt).of(text)


Devices = dict[str, Device]


def _devices(entry: Entry | None) -> Devices:
    return msgspec.msgpack.decode(entry.value, type=Devices) if entry is not None else {}


class DeviceStore:
    """All devices, in one record: they are few, and are always wanted together."""

    def __init__(self, store: Store, config: Config) -> None:
        self.store = store
        self._config = config
        # Returns the devices by path, which are not to be changed.
        self.current = Record(store, _DEVICES, _devices).current

    async def all(self, *, linearizable: bool = False) -> tuple[Devices, list[bytes], int]:
        """Returns the devices by path, and what the answer rests on."""
        reads = self.store.reads(linearizable=linearizable)
        entry = await reads.get(_DEVICES)
        return _devices(entry), reads.dependencies, reads.as_of

    async def enable(self, path: str, device: Device) -> None:
        """Adds a device.

        Raises:
            ServiceError: INVALID where the path is in use.
        """
        for _ in range(self._config.attempts):
            entry = await self.store.get(_DEVICES)
            devices = msgspec.msgpack.decode(entry.value, type=Devices) if entry else {}
            if path in devices:
                raise invalid("path already in use")
            with contextlib.suppress(ConflictError):
                await self._write({**devices, path: device}, entry.revision if entry else 0)
                return
        raise ServiceError(Kind.CONFLICT, "others change the audit devices; try again")

    async def disable(self, path: str) -> None:
        """Removes a device."""
        for _ in range(self._config.attempts):
            entry = await self.store.get(_DEVICES)
            devices = msgspec.msgpack.decode(entry.value, type=Devices) if entry else {}
            if devices.pop(path, None) is None or entry is None:
                return
            with contextlib.suppress(ConflictError):
                await self._write(devices, entry.revision)
                return
        raise ServiceError(Kind.CONFLICT, "others change the audit devices; try again")

    def new(self, kind: str, options: dict[str, str], description: str, *, local: bool) -> Device:
        """Returns a device as a client asks for it.

        Raises:
            ServiceError: INVALID; it says what to change.
        """
        if kind != "file":
            raise invalid("type: only file devices are supported")
        for name, text in options.items():
            if name not in _OPTIONS:
                raise invalid(f"options: unknown; known are {', '.join(sorted(_OPTIONS))}")
            check_length(f"options.{name}", text, _MOST_OPTION_CHARACTERS)
        if options.get("prefix"):
            raise invalid("options.prefix: entries have no prefix")
        if options.get("log_raw", "false").lower() not in ("false", "0", ""):
            raise invalid("options.log_raw: values are always hashed")
        if options.get("format", "json") not in ("json", ""):
            raise invalid("options.format: entries are JSON")
        if options.get("mode", "0600") not in ("0600", ""):
            raise invalid("options.mode: audit files have mode 0600")
        sync = options.get("sync") or "background"
        if sync not in ("always", "background"):
            raise invalid("options.sync: takes always or background")
        return Device(
            type=kind,
            file=self._allowed(options.get("file_path") or options.get("path") or ""),
            salt=os.urandom(32),
            description=description,
            sync_always=sync == "always",
            local=local,
            plain_accessors=options.get("hmac_accessor", "true").lower() in ("false", "0"),
            options=options,
        )

    def file(self, device: Device) -> FilePath:
        """Returns the file of a device on this machine."""
        return self._config.folder / device.file

    def _allowed(self, name: str) -> str:
        if not name:
            raise invalid("options.file_path: must be given")
        if not name.isprintable():
            raise invalid("options.file_path: cannot have characters that cannot be printed")
        folder = self._config.folder
        # Links are followed before the comparison, so that none leads out of the folder.
        resolved = (folder / name).resolve()
        if resolved in (file.resolve() for file in self._config.files):
            return str(resolved)
        if resolved.parent == folder.resolve():
            # A folder that is moved, or copied, takes along what was named without it.
            return str(resolved) if FilePath(name).is_absolute() else resolved.name
        raise invalid(
            f"options.file_path: must be a file in {folder}; an operator can allow others with "
            "the setting audit_files"
        )

    async def _write(self, devices: Devices, revision: int) -> None:
        await self.store.commit(
            Transaction(
                expect={_DEVICES: revision}, puts={_DEVICES: msgspec.msgpack.encode(devices)}
            )
        )

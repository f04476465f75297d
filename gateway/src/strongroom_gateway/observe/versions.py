"""Which versions of this software have served a cluster's data."""

import contextlib

import msgspec

from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction

_VERSIONS: Path = (Plain("versions"),)


class Installed(msgspec.Struct, frozen=True):
    """A version, and the wall time at which it served first."""

    version: str
    since: float


class VersionHistory:
    """The versions, the oldest first."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> list[Installed]:
        """Returns them."""
        entry = await self._store.get(_VERSIONS)
        return msgspec.msgpack.decode(entry.value, type=list[Installed]) if entry else []

    async def note(self, version: str, now: float) -> None:
        """Adds a version that serves for the first time. Another process may be as fast: one of them adds it."""
        while True:
            entry = await self._store.get(_VERSIONS)
            known = msgspec.msgpack.decode(entry.value, type=list[Installed]) if entry else []
            if any(each.version == version for each in known):
                return
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(
                        expect={_VERSIONS: entry.revision if entry else 0},
                        puts={_VERSIONS: msgspec.msgpack.encode([*known, Installed(version, now)])},
                    )
                )
                return

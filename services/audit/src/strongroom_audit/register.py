"""The register of chains: how far each was on the disk, kept apart from the files.

What a file no longer has shows against it: a log that was cut off, or a chain that is gone. It always lags behind
the files, by what was written since and by what is not on the disk yet, so that no crash makes it say more than they
have.
"""

import socket

import msgspec

from strongroom_audit.config import Config
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import ConflictError, Entry, Path, Plain, Store, Transaction

_CHAINS = Plain("chains")
_NUMBERED: Path = (Plain("numbered"),)


class ChainRecord(msgspec.Struct, frozen=True):
    """What is known of a chain.

    Args:
        writer: its name.
        device: the path of the device.
        file: where it was written last.
        began: when, RFC 3339.
        entries: how many of them are on the disk.
        hash: of the last of those.
        recorded: when this was written, RFC 3339.
        ended: there are no more.
        number: chains are numbered, from 1, so that a record that is gone shows.
        host: on which it is written.
    """

    writer: str
    device: str
    file: str
    began: str
    entries: int
    hash: str
    recorded: str
    ended: bool = False
    number: int = 0
    host: str = ""


class ChainRegister:
    """Keeps one record for each chain."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._attempts = config.attempts
        self._host = socket.gethostname()
        self._known: dict[str, tuple[int, int]] = {}  # number and revision, by writer

    async def record(self, chain: ChainRecord) -> None:
        """Writes down how far a chain of this process is.

        Raises:
            ServiceError: SEALED, UNAVAILABLE, CONFLICT; it may be tried again.
        """
        path: Path = (_CHAINS, Plain(chain.writer))
        for _ in range(self._attempts):
            transaction = Transaction()
            number, revision = self._known.get(chain.writer, (0, 0))
            if not number:
                # Perhaps it was written without our getting to know.
                entry, numbered = await self._store.get_many([path, _NUMBERED])
                if entry is not None:
                    number, revision = _record(entry).number, entry.revision
                else:
                    number = _last(numbered) + 1
                    transaction.expect[_NUMBERED] = numbered.revision if numbered else 0
                    transaction.puts[_NUMBERED] = msgspec.msgpack.encode(number)
            transaction.expect[path] = revision
            written = msgspec.structs.replace(chain, number=number, host=self._host)
            transaction.puts[path] = msgspec.msgpack.encode(written)
            try:
                revision = await self._store.commit(transaction)
            except ConflictError:
                self._known.pop(chain.writer, None)
                continue
            self._known[chain.writer] = (number, revision)
            if chain.ended:
                del self._known[chain.writer]
            return
        raise ServiceError(Kind.CONFLICT, "others register chains; try again")

    async def all(self) -> tuple[list[ChainRecord], int]:
        """Returns all records in the order of their numbers, and the last number that was given."""
        numbered = await self._store.get(_NUMBERED, linearizable=True)
        records = [_record(entry) for entry in await self._store.scan((_CHAINS,))]
        return sorted(records, key=lambda record: record.number), _last(numbered)


def _record(entry: Entry) -> ChainRecord:
    return msgspec.msgpack.decode(entry.value, type=ChainRecord)


def _last(numbered: Entry | None) -> int:
    return msgspec.msgpack.decode(numbered.value, type=int) if numbered is not None else 0

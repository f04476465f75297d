"""The key that seals chains: made once, replaced every day, shared by all processes of the service."""

import os

import msgspec

from strongroom_audit.config import Config
from strongroom_audit.domain.keys import SEED_BYTES, Certificate, SigningKey, first_key
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import ConflictError, Entry, Path, Plain, Store, Transaction
from strongroom_runtime.timestamps import parse_time, rfc3339

_SIGNING: Path = (Plain("signing"),)
_KEYS = Plain("keys")


class _Signing(msgspec.Struct, frozen=True):
    """The newest key. There is no record of the private half of any other."""

    seed: bytes
    certificate: Certificate

    def __repr__(self) -> str:
        return f"_Signing({self.certificate.number})"


class PublicKey(msgspec.Struct, frozen=True):
    """A key as auditors may know it."""

    public: str
    certificate: Certificate


class SigningKeys:
    """Keeps the newest key at hand.

    Args:
        store: has the keys.
        config: says how long one is used.
        clock: of the process.
    """

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._key: SigningKey | None = None

    @property
    def current(self) -> SigningKey:
        """The newest key, as of the last refresh.

        Raises:
            ServiceError: SEALED before the first, and once it was forgotten.
        """
        if self._key is None:
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        return self._key

    async def refresh(self) -> None:
        """Takes the newest key; makes the first one, and the next where it was used for long enough.

        Raises:
            ServiceError: SEALED, UNAVAILABLE; the key stays as it was.
        """
        entry = await self._store.get(_SIGNING)
        if entry is None:
            await self._replace(None)
            return
        key = entry.made = entry.made or _signing_key(entry)
        if self._clock.now() >= parse_time(key.certificate.since) + self._config.key_seconds:
            await self._replace(entry)
        else:
            self._key = key

    async def rotate(self) -> SigningKey:
        """Puts a new key in the place of the newest, whose private half goes.

        Raises:
            ServiceError: SEALED, UNAVAILABLE, or CONFLICT where others do so at the same moment.
        """
        for _ in range(self._config.attempts):
            if await self._replace(await self._store.get(_SIGNING)):
                return self.current
        raise ServiceError(Kind.CONFLICT, "others change the key; try again")

    def forget(self) -> None:
        """Drops the private half from memory."""
        self._key = None

    async def public_keys(self) -> list[PublicKey]:
        """Returns all keys there ever were, the oldest first."""
        entries = await self._store.scan((_KEYS,))
        return [msgspec.msgpack.decode(entry.value, type=PublicKey) for entry in entries]

    async def _replace(self, entry: Entry | None) -> bool:
        """Makes the next key, if the record is still as it was read; returns whether it was.

        Where another process was faster, its key is the newest.
        """
        seed, now = os.urandom(SEED_BYTES), rfc3339(self._clock.now())
        key = first_key(seed, now) if entry is None else _signing_key(entry).successor(seed, now)
        shown = PublicKey(key.public, key.certificate)
        number = Plain(f"{key.certificate.number:08}")
        revision = entry.revision if entry else 0
        try:
            await self._store.commit(
                Transaction(
                    expect={_SIGNING: revision, (_KEYS, number): 0},
                    puts={
                        _SIGNING: msgspec.msgpack.encode(_Signing(seed, key.certificate)),
                        (_KEYS, number): msgspec.msgpack.encode(shown),
                    },
                )
            )
        except ConflictError:
            found = await self._store.get(_SIGNING, linearizable=True)
            if found is None or found.revision == revision:
                # What is known of the past is not overwritten, whoever would like that.
                raise ServiceError(
                    Kind.INTERNAL, "the key of the audit log was put back or removed in etcd"
                ) from None
            self._key = _signing_key(found)
            return False
        self._key = key
        return True


def _signing_key(entry: Entry) -> SigningKey:
    record = msgspec.msgpack.decode(entry.value, type=_Signing)
    return SigningKey(record.seed, record.certificate)

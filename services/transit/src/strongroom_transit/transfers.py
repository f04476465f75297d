"""Keys that come from elsewhere: imported, restored, agreed on. Each is one transaction on the key as it is then."""

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import invalid, not_found
from strongroom_transit.checking import RsaCheck
from strongroom_transit.creation import new_key
from strongroom_transit.domain import transfer
from strongroom_transit.domain.backups import Restored, restored
from strongroom_transit.domain.keys import Key, check_name, check_new
from strongroom_transit.domain.kinds import Family, KeyType
from strongroom_transit.domain.material import Version
from strongroom_transit.storage import Change, Keys


class Wrapped(msgspec.Struct, frozen=True):
    """Material as a request brings it: a ciphertext and the hash of its OAEP, or a public key in PEM."""

    ciphertext: bytes = b""
    hash_name: str = ""
    public_key: str = ""

    def __repr__(self) -> str:
        return "Wrapped(…)"


class Transfers:
    """Brings keys here.

    Args:
        keys: of all mounts.
        clock: dates versions.
    """

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._check = RsaCheck()

    async def wrapping_key(self, mount: str) -> bytes:
        """Returns the private half of a mount's wrapping key, PKCS #8 DER."""
        return await self._keys.wrapping_key(mount, transfer.new_wrapping_key)

    async def create(self, mount: str, name: str, key: Key, wrapped: Wrapped) -> None:
        """Makes a key of imported material.

        Raises:
            ServiceError: INVALID where it does not fit, or there is one of that name.
        """
        check_name(name)
        version = await self._version(mount, key.kind, wrapped)
        if key.kind.family is Family.HMAC:
            key = msgspec.structs.replace(key, key_size=len(version.secret))
        if key.derived and not version.secret:
            raise invalid("public_key: keys are not derived from a public half alone")
        if key.rotate_period and not key.allow_rotation:
            raise invalid("auto_rotate_period: needs allow_rotation")
        check_new(key)

        async def decide(before: Key | None) -> Change:
            if before is not None:
                raise invalid("name: the import path cannot be used with an existing key")
            return Change(key.with_version(self._clock.now()), {1: version})

        await self._keys.change(mount, name, decide)

    async def add(self, mount: str, name: str, wrapped: Wrapped, wanted: int) -> None:
        """Adds a version to an imported key, or a private half to a version without one.

        Args:
            mount: its uuid.
            name: of the key.
            wrapped: what comes in.
            wanted: the version that gets a private half; 0 for the newest if it lacks this one, and for a new version
                otherwise.

        Raises:
            ServiceError: NOT_FOUND; INVALID where the key was not imported, or the halves do not belong together.
        """
        key = _imported(await self._keys.get(mount, name))
        version = await self._version(mount, key.kind, wrapped)
        if wanted < 0:
            raise invalid("version: must not be negative")
        if version.secret and not key.kind.symmetric:
            number = wanted or key.latest
            if await self._is_other_half(mount, name, number, version):
                await self._keys.replace_version(mount, name, number, _completed(version))
                return
        if wanted:
            raise invalid(
                "version: exists with a private half already, or with the public half of another key"
            )
        await self._append(mount, name, key.kind, version)

    async def restore(self, mount: str, name: str, text: str, *, force: bool) -> None:
        """Makes a key of a backup.

        Raises:
            ServiceError: INVALID where it is none, or there is a key of that name and `force` is not set.
        """
        found: Restored = await asyncio.to_thread(restored, text, self._clock.now())
        if found.key.kind.family is Family.RSA:
            await self._check([v.secret for v in found.versions.values() if v.secret])
        where = check_name(name or found.name)
        await self._keys.put(mount, where, found.key, found.versions, replace=force)

    async def agree(self, mount: str, name: str, kind: KeyType, secret: bytes) -> None:
        """Keeps a key that was agreed on: as a new key, or as a version of one that came about so before.

        Raises:
            ServiceError: INVALID where there is a key of that name that did not, or is of another type.
        """
        check_name(name)
        version = transfer.imported(kind, secret, self._clock.now())

        async def decide(before: Key | None) -> Change:
            key = msgspec.structs.replace(new_key(kind), imported=True)
            if before is not None:
                key = _imported(before)
                if key.kind != kind:
                    raise invalid("derived_key_type: is not the type of the key of that name")
            after = key.with_version(self._clock.now())
            return Change(after, {after.latest: version})

        await self._keys.change(mount, name, decide)

    async def _append(self, mount: str, name: str, kind: KeyType, version: Version) -> None:
        async def decide(before: Key | None) -> Change:
            key = _imported(before)
            if key.kind != kind:
                raise invalid("name: is of another key by now")
            if key.derived and not version.secret:
                raise invalid("public_key: keys are not derived from a public half alone")
            if kind.family is Family.HMAC:
                key = msgspec.structs.replace(key, key_size=len(version.secret))
            after = key.with_version(self._clock.now())
            return Change(after, {after.latest: version})

        await self._keys.change(mount, name, decide)

    async def _version(self, mount: str, kind: KeyType, wrapped: Wrapped) -> Version:
        now = self._clock.now()
        if not wrapped.ciphertext:
            if not wrapped.public_key:
                raise invalid("ciphertext and public_key: one of them must be given")
            return transfer.imported_public(kind, wrapped.public_key, now)
        own = await self.wrapping_key(mount)
        material = transfer.unwrap(own, wrapped.ciphertext, wrapped.hash_name)
        version = transfer.imported(kind, material, now)
        if kind.family is Family.RSA:
            await self._check([version.secret])
        return version

    async def _is_other_half(self, mount: str, name: str, number: int, version: Version) -> bool:
        keyset = await self._keys.keyset(mount, name, {number})
        if keyset is None or number not in keyset.versions:
            return False
        kept = keyset.version(number).version
        return not kept.secret and kept.public == version.public


def chosen(key: Key, text: str) -> Iterable[int]:
    """Returns the versions that an export names.

    Args:
        key: its settings.
        text: a version, latest, or empty for all that may be exported.

    Raises:
        ServiceError: INVALID.
    """
    first = max(key.min_decryption, key.oldest)
    if not text:
        return range(first, key.latest + 1)
    if text == "latest":
        return (key.latest,)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise invalid("version: takes a number, or latest")
    if int(text) < first:
        raise invalid("version for export is below minimum decryption version")
    if int(text) > key.latest:
        raise invalid("version does not exist or cannot be found")
    return (int(text),)


def check_not_retired(key: Key, number: int) -> None:
    """Raises where a version is too old for anything to be done with it.

    Raises:
        ServiceError: INVALID.
    """
    if number < key.min_decryption:
        raise invalid("version: is less than the minimum decryption key version")


def _imported(key: Key | None) -> Key:
    if key is None:
        raise not_found("no key found of that name; to import a new key, use the import endpoint")
    key.check_usable()
    if not key.imported:
        raise invalid("name: only an imported key takes versions from elsewhere")
    return key


def _completed(version: Version) -> Callable[[Key, Version], Version]:
    """Returns what puts a private half into the version that has its public half."""

    def complete(key: Key, before: Version) -> Version:
        if before.secret or before.public != version.public:
            raise invalid("version: was completed by another request")
        return msgspec.structs.replace(before, secret=version.secret)

    return complete

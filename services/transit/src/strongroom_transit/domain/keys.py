"""A key: its settings, and what may be done to it. Times are wall time in seconds since 1970."""

import math
import re

import msgspec

from strongroom_runtime.errors import invalid
from strongroom_transit.domain.kinds import TYPES, Family, KeyType

MIN_ROTATE_PERIOD = 3600
HMAC_MIN, HMAC_MAX = 32, 512
_NAME = re.compile(r"\w(?:[\w.-]{0,254}\w)?", re.ASCII)


class Key(msgspec.Struct, frozen=True):
    """Everything about a key but its versions.

    Args:
        uuid: never changes; versions are kept under it.
        type: one of TYPES.
        latest: the newest version.
        min_decryption: older versions decrypt and verify nothing.
        min_encryption: older versions encrypt and sign nothing; 0 for no bound.
        min_available: older versions are gone; 0 where none was trimmed.
        deletion_allowed: it can be removed.
        derived: a key for each context is derived from it.
        convergent: equal plaintexts in equal contexts give equal ciphertexts.
        exportable: it can be exported.
        backup_allowed: it can be backed up.
        rotate_period: seconds after which a version is added; 0 for never.
        rotate_at: when the next one is.
        imported: it came from outside.
        allow_rotation: versions may be made here even so.
        soft_deleted: it is out of use.
        key_size: bytes of an hmac key; 0 for other types.
        counter_kdf: keys for contexts come from a KDF in counter mode instead of HKDF, as in Vault and OpenBao for
            derived keys that were imported.
    """

    uuid: str
    type: str
    latest: int = 0
    min_decryption: int = 1
    min_encryption: int = 0
    min_available: int = 0
    deletion_allowed: bool = False
    derived: bool = False
    convergent: bool = False
    exportable: bool = False
    backup_allowed: bool = False
    rotate_period: int = 0
    rotate_at: float = 0.0
    imported: bool = False
    allow_rotation: bool = False
    soft_deleted: bool = False
    key_size: int = 0
    counter_kdf: bool = False

    @property
    def kind(self) -> KeyType:
        """Its type."""
        return TYPES[self.type]

    @property
    def oldest(self) -> int:
        """The oldest version that there is."""
        return max(self.min_available, 1)

    @property
    def rotates_by_itself(self) -> bool:
        """Whether versions are added on time. OpenBao keeps a period of imported keys that it may not rotate, too."""
        return bool(self.rotate_period) and (self.allow_rotation or not self.imported)

    def check_usable(self) -> None:
        """Raises where the key is out of use.

        Raises:
            ServiceError: INVALID.
        """
        if self.soft_deleted:
            raise invalid("refusing to use soft-deleted key; restore it first")

    def version_for_encryption(self, wanted: int) -> int:
        """Returns the version that encrypts or signs.

        Args:
            wanted: a version, or 0 for the newest.

        Raises:
            ServiceError: INVALID; it names the bound.
        """
        if not wanted:
            return self.latest
        if wanted < 0:
            raise invalid("key_version: must not be negative")
        if wanted > self.latest:
            raise invalid("key_version: is higher than the latest key version")
        if wanted < max(self.min_encryption, self.min_available):
            raise invalid("key_version: is less than the minimum encryption key version")
        if wanted < self.min_decryption:  # what it made could not be decrypted or verified
            raise invalid("key_version: is less than the minimum decryption key version")
        return wanted

    def check_decryption(self, version: int, what: str = "ciphertext") -> None:
        """Raises where a version may not decrypt or verify.

        Raises:
            ServiceError: INVALID.
        """
        if version > self.latest:
            raise invalid(f"invalid {what}: version is too new")
        if version < max(self.min_decryption, self.oldest):
            raise invalid("ciphertext or signature version is disallowed by policy (too old)")

    def check_rotation(self) -> None:
        """Raises where no version may be made here.

        Raises:
            ServiceError: INVALID.
        """
        self.check_usable()
        if self.imported and not self.allow_rotation:
            raise invalid(
                "imported key does not allow rotation within this service; import a version"
            )

    def with_version(self, now: float) -> "Key":
        """Returns the key with one more version, made now by someone; the next comes a period later."""
        at = now + self.rotate_period if self.rotates_by_itself else 0.0
        return msgspec.structs.replace(self, latest=self.latest + 1, rotate_at=at)

    def rotated_on_time(self, now: float) -> "Key":
        """Returns the key with one more version, made because it was due.

        The next is due a whole number of periods after this one was, however late this one is: nothing drifts.
        """
        missed = math.floor(max(0.0, now - self.rotate_at) / self.rotate_period)
        at = self.rotate_at + (missed + 1) * self.rotate_period
        return msgspec.structs.replace(self, latest=self.latest + 1, rotate_at=at)

    def trimmed(self, first: int) -> "Key":
        """Returns the key without the versions before one.

        Raises:
            ServiceError: INVALID; it names the bound.
        """
        self.check_usable()
        if not self.min_encryption:
            raise invalid(
                "minimum available version cannot be set when minimum encryption version is not set"
            )
        if self.min_available and first < self.min_available:
            raise invalid("minimum available version cannot be decremented")
        if first < 1:
            raise invalid("min_available_version: takes a version from 1 on")
        if first > self.min_encryption:
            raise invalid(
                "minimum available version cannot be greater than minimum encryption version"
            )
        if first > self.min_decryption:
            raise invalid(
                "minimum available version cannot be greater than minimum decryption version"
            )
        return msgspec.structs.replace(self, min_available=first)


class Settings(msgspec.Struct, frozen=True):
    """Changes of a key's settings; None leaves one as it is."""

    min_decryption: int | None = None
    min_encryption: int | None = None
    deletion_allowed: bool | None = None
    exportable: bool | None = None
    backup_allowed: bool | None = None
    rotate_period: int | None = None


def configured(key: Key, settings: Settings, now: float) -> Key:
    """Returns a key with settings changed.

    Raises:
        ServiceError: INVALID; it names the field.
    """
    given = {
        name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None
    }
    for name, public in (
        ("exportable", "exportable"),
        ("backup_allowed", "allow_plaintext_backup"),
    ):
        if given.get(name) is False and getattr(key, name):
            raise invalid(f"{public}: cannot be taken back once it is set")
    if "min_decryption" in given:
        given["min_decryption"] = given["min_decryption"] or 1
    for name, public in (
        ("min_decryption", "min_decryption_version"),
        ("min_encryption", "min_encryption_version"),
    ):
        if given.get(name, 0) < 0:
            raise invalid(f"{public}: must not be negative")
        if given.get(name, 0) > key.latest:
            raise invalid(
                f"{public}: cannot be set to a version above the latest, which is {key.latest}"
            )
    if "rotate_period" in given:
        check_period(given["rotate_period"])
        if given["rotate_period"] and key.imported and not key.allow_rotation:
            raise invalid(
                "auto_rotate_period: the key is imported, and its rotation here not allowed"
            )
        if given["rotate_period"] != key.rotate_period:
            given["rotate_at"] = now + given["rotate_period"] if given["rotate_period"] else 0.0
    after = msgspec.structs.replace(key, **given)
    if after.min_encryption and after.min_encryption < after.min_decryption:
        raise invalid(
            f"min_encryption_version: cannot be less than min_decryption_version, which is {after.min_decryption}"
        )
    if after.min_decryption < after.min_available:
        raise invalid("min_decryption_version: cannot be less than min_available_version")
    return after


def check_name(name: str) -> str:
    """Returns a key's name.

    Raises:
        ServiceError: INVALID.
    """
    if not _NAME.fullmatch(name):
        raise invalid(
            "name: takes letters, digits, underscores, and dots and dashes between them; at most 256"
        )
    return name


def check_period(seconds: int) -> None:
    """Raises for a period of rotation that is too short.

    Raises:
        ServiceError: INVALID.
    """
    if seconds and seconds < MIN_ROTATE_PERIOD:
        raise invalid("auto_rotate_period: must be 0 to disable or at least an hour")


def check_new(key: Key) -> None:
    """Raises where a key cannot be as it is to be made.

    Raises:
        ServiceError: INVALID; it names the field.
    """
    kind = key.kind
    if key.derived and not kind.derives:
        raise invalid(f"derived: is not supported for keys of type {kind.name}")
    if key.convergent and not key.derived:
        raise invalid("convergent_encryption: requires derivation to be enabled")
    if key.convergent and kind.family is not Family.AEAD:
        raise invalid(f"convergent_encryption: is not supported for keys of type {kind.name}")
    if key.key_size and kind.family is not Family.HMAC:
        raise invalid(f"key_size: is not taken for keys of type {kind.name}")
    if kind.family is Family.HMAC and not HMAC_MIN <= key.key_size <= HMAC_MAX:
        raise invalid(f"key_size: takes {HMAC_MIN} to {HMAC_MAX} bytes")
    check_period(key.rotate_period)

"""Encryption and decryption of batches: functions of a keyset and items, without I/O.

A ciphertext is `vault:v<version>:` and the base64 of nonce, ciphertext and tag (AEADs), or of an RSA-OAEP block with
SHA-256.

Convergent encryption is version 3 of Vault's: HKDF-SHA256 gives for each context the AEAD key and 32 bytes behind it,
and the nonce is the head of HMAC-SHA256 under those over the plaintext. Unlike Vault's, it depends on the associated
data too, where there are any. See docs/decisions/0012-transit-keys.md.
"""

import hashlib
import hmac
import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from strongroom_runtime.errors import ServiceError, invalid
from strongroom_transit.domain.keyset import PREFIX, Keyset, split
from strongroom_transit.domain.kinds import Family
from strongroom_transit.domain.material import Loaded

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_TAG_BYTES = 16
_NONCES = 1_000  # that are drawn at once, at the most
MAX_BYTES = 32 << 20  # of one plaintext


class EncryptItem(Protocol):
    """What to encrypt: a message of the contract has this form."""

    plaintext: bytes
    context: bytes
    associated_data: bytes
    key_version: int
    nonce: bytes


class DecryptItem(Protocol):
    """What to decrypt: a message of the contract has this form."""

    ciphertext: str
    context: bytes
    associated_data: bytes


class RewrapItem(DecryptItem, Protocol):
    """What to encrypt anew: a message of the contract has this form."""

    key_version: int


class Encrypted(NamedTuple):
    """A ciphertext, and the version it was made with."""

    ciphertext: str
    version: int


def check_encrypts(keyset: Keyset, verb: str = "encryption") -> None:
    """Raises where the key cannot encrypt and decrypt.

    Raises:
        ServiceError: INVALID.
    """
    kind = keyset.key.kind
    if not kind.encrypts:
        raise invalid(f"message {verb} not supported for key type {kind.name}")


class Sealer:
    """Encrypts texts with one key. What the texts of a batch share is looked up once.

    Args:
        keyset: the key, of a type that encrypts.
        count: how many texts there are.
    """

    def __init__(self, keyset: Keyset, count: int = 1) -> None:
        self._keyset = keyset
        self._key = keyset.key
        kind = keyset.key.kind
        self._aead = kind.family is Family.AEAD
        self._nonce_bytes = kind.nonce_bytes
        # One system call makes the nonces of many texts: each costs as much as encrypting a short one.
        self._drawn_at_once = kind.nonce_bytes * min(count, _NONCES)
        self._nonces = b""
        self._at = 0
        self._versions: dict[int, tuple[Loaded, str]] = {}

    def encrypt(self, item: EncryptItem) -> Encrypted:
        """Returns one ciphertext.

        Raises:
            ServiceError: INVALID.
        """
        if item.nonce:
            raise invalid("nonce: provided when not allowed")
        return self.seal(item.plaintext, item.context, item.associated_data, item.key_version)

    def seal(
        self, plaintext: bytes, context: bytes, associated_data: bytes, wanted: int
    ) -> Encrypted:
        """Returns a plaintext encrypted.

        Args:
            plaintext: what to encrypt.
            context: for derived keys.
            associated_data: authenticated with it.
            wanted: the version, or 0 for the newest.

        Raises:
            ServiceError: INVALID.
        """
        key = self._key
        number = key.version_for_encryption(wanted) if wanted else key.latest
        found = self._versions.get(number)
        if found is None:
            found = self._versions[number] = self._keyset.version(number), f"{PREFIX}{number}:"
        loaded, prefix = found
        if self._aead:
            aead, nonce_key = loaded.cipher(context)
            if key.convergent:
                made = _convergent_nonce(nonce_key, plaintext, associated_data)
                nonce = made[: self._nonce_bytes]
            else:
                nonce = self._nonce()
            sealed = nonce + aead.encrypt(nonce, plaintext, associated_data)
        else:
            if associated_data:
                raise invalid(f"associated_data: not supported for keys of type {key.type}")
            try:
                sealed = loaded.public.encrypt(plaintext, _OAEP)
            except ValueError:
                raise invalid("plaintext: is too long for the key") from None
        return Encrypted(prefix + b2a_base64(sealed, newline=False).decode(), number)

    def _nonce(self) -> bytes:
        """Returns random bytes that were not returned before."""
        start, end = self._at, self._at + self._nonce_bytes
        if end > len(self._nonces):
            self._nonces = os.urandom(self._drawn_at_once)
            start, end = 0, self._nonce_bytes
        self._at = end
        return self._nonces[start:end]


def _convergent_nonce(key: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Returns 32 bytes that differ wherever plaintext or associated data do.

    Two tags under one nonce, of one text with different associated data, give up the key that authenticates (GCM's H,
    Poly1305's r), and with it forgeries.
    """
    nonce = hmac.digest(key, plaintext, hashlib.sha256)
    return hmac.digest(nonce, associated_data, hashlib.sha256) if associated_data else nonce


def encrypt(keyset: Keyset, item: EncryptItem) -> Encrypted:
    """Returns one ciphertext; see `Sealer.encrypt`."""
    return Sealer(keyset).encrypt(item)


def seal(
    keyset: Keyset, plaintext: bytes, context: bytes, associated_data: bytes, wanted: int
) -> Encrypted:
    """Returns one plaintext encrypted; see `Sealer.seal`."""
    return Sealer(keyset).seal(plaintext, context, associated_data, wanted)


def decrypt(keyset: Keyset, item: DecryptItem) -> bytes:
    """Returns one plaintext.

    Raises:
        ServiceError: INVALID; the ciphertext is malformed, too old or does not open.
    """
    key = keyset.key
    number, text = split(item.ciphertext, "ciphertext")
    key.check_decryption(number)
    try:
        sealed = a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError):
        raise invalid("invalid ciphertext: could not decode base64") from None
    loaded = keyset.version(number)
    if key.kind.family is Family.AEAD:
        aead = loaded.cipher(item.context)[0]
        return _open(aead, key.kind.nonce_bytes, sealed, item.associated_data)
    if item.associated_data:
        raise invalid(f"associated_data: not supported for keys of type {key.type}")
    try:
        plaintext: bytes = loaded.private.decrypt(sealed, _OAEP)
    except ValueError:
        raise invalid("invalid ciphertext: failed to decrypt") from None
    return plaintext


def rewrap(keyset: Keyset, sealer: Sealer, item: RewrapItem) -> Encrypted:
    """Returns one ciphertext made anew of another.

    Raises:
        ServiceError: INVALID.
    """
    plaintext = decrypt(keyset, item)
    return sealer.seal(plaintext, item.context, item.associated_data, item.key_version)


def _open(aead: Any, nonce_bytes: int, sealed: bytes, associated_data: bytes) -> bytes:
    if len(sealed) < nonce_bytes + _TAG_BYTES:
        raise invalid("invalid ciphertext length")
    try:
        plaintext: bytes = aead.decrypt(sealed[:nonce_bytes], sealed[nonce_bytes:], associated_data)
    except InvalidTag:
        raise invalid("invalid ciphertext: message authentication failed") from None
    return plaintext


def each(
    keyset: Keyset, items: Iterable[Any], operation: Callable[[Keyset, Any], Any]
) -> list[Any]:
    """Returns what an operation makes of each item: its result, or the error where it failed."""
    results: list[Any] = []
    for item in items:
        try:
            results.append(operation(keyset, item))
        except ServiceError as error:
            results.append(error)
    return results

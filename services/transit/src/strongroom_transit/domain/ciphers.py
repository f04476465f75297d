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
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from strongroom_runtime.errors import ServiceError, invalid
from strongroom_runtime.tools import base64_bytes
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import PREFIX, Keyset, split
from strongroom_transit.domain.kinds import Family

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_TAG_BYTES = 16
_NONCES = 1_000  # that are drawn at once, at the most
MAX_BYTES = 32 << 20  # of one plaintext

_plaintext, _associated_data = attrgetter("plaintext"), attrgetter("associated_data")
_to_decrypt = attrgetter("ciphertext", "associated_data")


class Text(Protocol):
    """What to encrypt, with a version that is told beside it: a message of the contract has this form."""

    plaintext: bytes
    context: bytes
    associated_data: bytes


class EncryptItem(Text, Protocol):
    """What to encrypt: a message of the contract has this form."""

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
        self._nonce_bytes = keyset.key.kind.nonce_bytes
        # One system call makes the nonces of many texts: each costs as much as encrypting a short one.
        self._drawn_at_once = min(count, _NONCES)
        self._nonces: list[bytes] = []
        # Of the version that was used last:
        self._wanted: int | None = None
        self.version = 0  # its number
        self._loaded: Any = None
        self._prefix = ""
        self._encrypt: Any = None  # where one AEAD key does for all contexts

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
        if wanted != self._wanted:
            self._take_version(wanted)
        if self._encrypt is not None:
            nonces = self._nonces or self._draw()
            nonce = nonces.pop()
            sealed = nonce + self._encrypt(nonce, plaintext, associated_data)
        else:
            sealed = self._sealed(plaintext, context, associated_data)
        return Encrypted(
            self._prefix + b2a_base64(sealed, newline=False).decode("ascii"), self.version
        )

    def seal_all(
        self, items: Sequence[Any], wanted: int, plaintexts: Sequence[bytes] | None = None
    ) -> list[str | ServiceError]:
        """Returns a ciphertext for each item, or the error where there is none.

        Args:
            items: what to encrypt, each a `Text`; a `DecryptItem` where the plaintext is beside it.
            wanted: the version for all of them, or 0 for the newest; `version` says afterwards which that was.
            plaintexts: of the items, where they do not have them themselves.
        """
        try:
            self._take_version(wanted)
        except ServiceError as error:
            return [error.again() for _ in items]
        encrypt, prefix, size = self._encrypt, self._prefix, self._nonce_bytes
        texts = map(_plaintext, items) if plaintexts is None else plaintexts
        if encrypt is None:

            def seal(text: bytes, item: Any) -> str:
                return self.seal(text, item.context, item.associated_data, wanted).ciphertext

            return each(lambda pair: seal(*pair), zip(texts, items, strict=True))
        drawn = os.urandom(size * len(items))  # one system call for all
        results: list[str | ServiceError] = []
        add, end = results.append, 0
        # Most of the time of a batch is spent here: nothing is called that need not be.
        for plaintext, associated_data in zip(texts, map(_associated_data, items), strict=True):
            start, end = end, end + size
            nonce = drawn[start:end]
            sealed = nonce + encrypt(nonce, plaintext, associated_data)
            add(prefix + b2a_base64(sealed, newline=False).decode("ascii"))
        return results

    def _take_version(self, wanted: int) -> None:
        key = self._key
        self.version = key.version_for_encryption(wanted)
        self._loaded = self._keyset.version(self.version)
        self._prefix = f"{PREFIX}{self.version}:"
        simple = key.kind.family is Family.AEAD and not key.derived
        self._encrypt = self._loaded.cipher(b"")[0].encrypt if simple else None
        self._wanted = wanted

    def _sealed(self, plaintext: bytes, context: bytes, associated_data: bytes) -> bytes:
        """Returns what stands in a ciphertext, for derived keys and for RSA."""
        if self._key.kind.family is Family.AEAD:
            aead, nonce_key = self._loaded.cipher(context)
            if self._key.convergent:
                nonce = _convergent_nonce(nonce_key, plaintext, associated_data)
                nonce = nonce[: self._nonce_bytes]
            else:
                nonce = (self._nonces or self._draw()).pop()
            sealed: bytes = nonce + aead.encrypt(nonce, plaintext, associated_data)
            return sealed
        _refuse_associated_data(self._key, associated_data)
        try:
            sealed = self._loaded.public.encrypt(plaintext, _OAEP)
        except ValueError:
            raise invalid("plaintext: is too long for the key") from None
        return sealed

    def _draw(self) -> list[bytes]:
        """Makes random nonces, each to be taken once."""
        size = self._nonce_bytes
        drawn = os.urandom(size * self._drawn_at_once)
        self._nonces = [drawn[at : at + size] for at in range(0, len(drawn), size)]
        return self._nonces


class Opener:
    """Decrypts texts with one key. What the texts of a batch share is looked up once.

    Args:
        keyset: the key, of a type that encrypts.
    """

    def __init__(self, keyset: Keyset) -> None:
        self._keyset = keyset
        self._key = keyset.key
        self._least = keyset.key.kind.nonce_bytes + _TAG_BYTES
        # Of the version that was met last:
        self._prefix = ""
        self._loaded: Any = None
        self._decrypt: Any = None  # where one AEAD key does for all contexts

    def decrypt(self, item: DecryptItem) -> bytes:
        """Returns one plaintext; see `open`."""
        return self.open(item.ciphertext, item.context, item.associated_data)

    def decrypt_all(self, items: Iterable[DecryptItem]) -> list[bytes | ServiceError]:
        """Returns the plaintext of each item, or the error where there is none."""
        results: list[bytes | ServiceError] = []
        add, nonce_bytes, least = results.append, self._least - _TAG_BYTES, self._least
        prefix, decrypt = self._prefix, self._decrypt
        # Those of one version are opened here, where nothing is called that need not be. What is otherwise with an
        # item, or wrong with it, `decrypt` finds.
        for item in items:
            ciphertext, associated_data = _to_decrypt(item)
            if decrypt is not None and ciphertext.startswith(prefix):
                try:
                    sealed = a2b_base64(ciphertext[len(prefix) :], strict_mode=True)
                    if len(sealed) >= least:
                        nonce = sealed[:nonce_bytes]
                        add(decrypt(nonce, sealed[nonce_bytes:], associated_data))
                        continue
                except (ValueError, InvalidTag):
                    pass
            results += each(self.decrypt, (item,))
            prefix, decrypt = self._prefix, self._decrypt
        return results

    def open(self, ciphertext: str, context: bytes, associated_data: bytes) -> bytes:
        """Returns what was encrypted.

        Args:
            ciphertext: as `Sealer` makes it.
            context: for derived keys.
            associated_data: authenticated with it.

        Raises:
            ServiceError: INVALID; the ciphertext is malformed, too old or does not open.
        """
        prefix = self._prefix
        if not prefix or not ciphertext.startswith(prefix):
            prefix = self._take_version(ciphertext)
        try:
            sealed = a2b_base64(ciphertext[len(prefix) :], strict_mode=True)
        except ValueError:
            sealed = _wrapped(ciphertext[len(prefix) :])
        decrypt = self._decrypt
        if decrypt is None:
            if self._key.kind.family is not Family.AEAD:
                return self._opened(sealed, associated_data)
            decrypt = self._loaded.cipher(context)[0].decrypt
        if len(sealed) < self._least:
            raise invalid("invalid ciphertext length")
        nonce_bytes = self._least - _TAG_BYTES
        try:
            plaintext: bytes = decrypt(sealed[:nonce_bytes], sealed[nonce_bytes:], associated_data)
        except InvalidTag:
            raise invalid("invalid ciphertext: message authentication failed") from None
        return plaintext

    def _take_version(self, ciphertext: str) -> str:
        """Makes ready for ciphertexts of the version of this one; returns what they begin with."""
        self._prefix, self._decrypt = "", None
        number, text = split(ciphertext, "ciphertext")
        key = self._key
        key.check_decryption(number)
        self._loaded = self._keyset.version(number)
        simple = key.kind.family is Family.AEAD and not key.derived
        self._decrypt = self._loaded.cipher(b"")[0].decrypt if simple else None
        self._prefix = ciphertext[: len(ciphertext) - len(text)]
        return self._prefix

    def _opened(self, sealed: bytes, associated_data: bytes) -> bytes:
        _refuse_associated_data(self._key, associated_data)
        try:
            plaintext: bytes = self._loaded.private.decrypt(sealed, _OAEP)
        except ValueError:
            raise invalid("invalid ciphertext: failed to decrypt") from None
        return plaintext


def _wrapped(text: str) -> bytes:
    """Returns what text stands for that may have line ends in it, as when it comes from a file."""
    try:
        return base64_bytes(text)
    except ValueError:
        raise invalid("invalid ciphertext: could not decode base64") from None


def _refuse_associated_data(key: Key, associated_data: bytes) -> None:
    if associated_data:
        raise invalid(f"associated_data: not supported for keys of type {key.type}")


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
    """Returns one plaintext; see `Opener.open`."""
    return Opener(keyset).decrypt(item)


def rewrap(opener: Opener, sealer: Sealer, item: RewrapItem) -> Encrypted:
    """Returns one ciphertext made anew of another.

    Raises:
        ServiceError: INVALID.
    """
    plaintext = opener.decrypt(item)
    return sealer.seal(plaintext, item.context, item.associated_data, item.key_version)


def rewrap_all(
    opener: Opener, sealer: Sealer, items: Sequence[DecryptItem], wanted: int
) -> list[str | ServiceError]:
    """Returns a ciphertext made anew for each item, or the error where there is none; see `Sealer.seal_all`."""
    opened = opener.decrypt_all(items)
    pairs = [
        (item, text)
        for item, text in zip(items, opened, strict=True)
        if not isinstance(text, ServiceError)
    ]
    made = iter(sealer.seal_all([item for item, _ in pairs], wanted, [text for _, text in pairs]))
    return [text if isinstance(text, ServiceError) else next(made) for text in opened]


def each(operation: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Returns what an operation makes of each item: its result, or the error where it failed."""
    results: list[Any] = []
    add = results.append
    for item in items:
        try:
            add(operation(item))
        except ServiceError as error:
            add(error.again())  # the traceback of this one has this frame: a cycle
    return results

"""Streams of any length as authenticated segments: AES256-GCM-HKDF, the construction of Tink's streaming AEAD.

Tink ("AES-GCM-HKDF Streaming AEAD", developers.google.com/tink) made of the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizár ("Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", CRYPTO
2015) what is here, byte for byte: a header of its length, a salt and a nonce prefix; then segments of one size, of
which the first is shorter by the header. Each is sealed with AES-256-GCM under HKDF-SHA256(key, salt,
info=associated data), with the prefix, the number of the segment and a last byte that is 1 for the last segment as
nonce. So segments that are missing, doubled, swapped or cut off do not open, and nothing is given out that was not
authenticated.

Both ends take pieces of any length and hold at most one segment.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
TAG_BYTES = 16
SALT_BYTES = KEY_BYTES
PREFIX_BYTES = 7
HEADER_BYTES = 1 + SALT_BYTES + PREFIX_BYTES
MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES = 4 << 10, 1 << 20
_MOST_SEGMENTS = 1 << 32


class StreamError(ValueError):
    """A stream is not whole, not what was encrypted, or was encrypted with something else."""


class Encryptor:
    """Encrypts one stream.

    Args:
        key: 32 bytes, used for any number of streams.
        associated_data: must be the same for decryption; is not part of the stream.
        segment_bytes: of a segment with its tag.
        salt: 32 bytes and
        prefix: 7 bytes, of the header; random, except in tests against published vectors.

    Raises:
        ValueError: a length is wrong.
    """

    def __init__(
        self,
        key: bytes,
        associated_data: bytes,
        segment_bytes: int,
        *,
        salt: bytes = b"",
        prefix: bytes = b"",
    ) -> None:
        salt, prefix = salt or os.urandom(SALT_BYTES), prefix or os.urandom(PREFIX_BYTES)
        self._segments = _Segments(key, associated_data, segment_bytes, salt, prefix)
        self._header = bytes([HEADER_BYTES]) + salt + prefix
        self._held = bytearray()

    def update(self, data: bytes) -> bytes:
        """Takes plaintext; returns what of the ciphertext is ready, which may be nothing."""
        self._held += data
        parts = [self._take_header()]
        # The last segment is marked, so a full one waits until there is more.
        while len(self._held) > (room := self._segments.plaintext_bytes):
            with memoryview(self._held) as view:
                parts.append(self._segments.seal(bytes(view[:room]), last=False))
            del self._held[:room]
        return b"".join(parts)

    def finalize(self) -> bytes:
        """Returns the rest of the ciphertext. An empty stream has one empty segment."""
        last = self._segments.seal(bytes(self._held), last=True)
        return self._take_header() + last

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header


class Decryptor:
    """Decrypts one stream.

    Args:
        key: the one that it was encrypted with.
        associated_data: as for encryption.
        segment_bytes: as for encryption.
    """

    def __init__(self, key: bytes, associated_data: bytes, segment_bytes: int) -> None:
        self._key = key
        self._associated_data = associated_data
        self._segment_bytes = segment_bytes
        self._segments: _Segments | None = None
        self._held = bytearray()

    def update(self, data: bytes) -> bytes:
        """Takes ciphertext; returns the plaintext of the segments that are whole and authentic.

        Raises:
            StreamError: something is not as it was encrypted.
        """
        self._held += data
        segments = self._begin()
        if segments is None:
            return b""
        parts = []
        while len(self._held) > (size := segments.plaintext_bytes + TAG_BYTES):
            with memoryview(self._held) as view:
                parts.append(segments.open(bytes(view[:size]), last=False))
            del self._held[:size]
        return b"".join(parts)

    def finalize(self) -> bytes:
        """Returns the rest of the plaintext, once all ciphertext was given.

        Raises:
            StreamError: the end is missing, or not as it was encrypted. What was returned before is then only a
                beginning.
        """
        segments = self._begin()
        if segments is None or len(self._held) < TAG_BYTES:
            raise StreamError("the stream is cut off")
        return segments.open(bytes(self._held), last=True)

    def _begin(self) -> "_Segments | None":
        if self._segments is None and len(self._held) >= HEADER_BYTES:
            header = bytes(self._held[:HEADER_BYTES])
            del self._held[:HEADER_BYTES]
            if header[0] != HEADER_BYTES:
                raise StreamError("the stream has another header than that of AES256-GCM-HKDF")
            salt, prefix = header[1 : 1 + SALT_BYTES], header[1 + SALT_BYTES :]
            self._segments = _Segments(
                self._key, self._associated_data, self._segment_bytes, salt, prefix
            )
        return self._segments


class _Segments:
    """Seals and opens segments in their order."""

    def __init__(
        self, key: bytes, associated_data: bytes, segment_bytes: int, salt: bytes, prefix: bytes
    ) -> None:
        if len(key) != KEY_BYTES or len(salt) != SALT_BYTES or len(prefix) != PREFIX_BYTES:
            raise ValueError("key, salt or prefix has a wrong length")
        if not MIN_SEGMENT_BYTES <= segment_bytes <= MAX_SEGMENT_BYTES:
            raise ValueError("a segment has 4 KiB to 1 MiB")
        derived = HKDF(SHA256(), KEY_BYTES, salt, associated_data).derive(key)
        self._aead = AESGCM(derived)
        self._prefix = prefix
        self._segment_bytes = segment_bytes
        self._number = 0

    @property
    def plaintext_bytes(self) -> int:
        """How much the next segment holds."""
        first = HEADER_BYTES if self._number == 0 else 0
        return self._segment_bytes - TAG_BYTES - first

    def seal(self, plaintext: bytes, *, last: bool) -> bytes:
        return self._aead.encrypt(self._nonce(last), plaintext, None)

    def open(self, ciphertext: bytes, *, last: bool) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(last), ciphertext, None)
        except InvalidTag:
            raise StreamError(
                "a segment is not as it was encrypted: it was changed, moved or cut off, or the key or the associated"
                " data is another"
            ) from None

    def _nonce(self, last: bool) -> bytes:
        if self._number >= _MOST_SEGMENTS:
            raise StreamError("the stream has too many segments")
        nonce = self._prefix + self._number.to_bytes(4, "big") + bytes([last])
        self._number += 1
        return nonce

"""The format of encrypted streams and files, the same from the server (`StreamCipherService`) and from this package.

    bytes  what
    4      "SRST"
    1      2, the version of this format
    1      1, AES256-GCM-HKDF in segments; see `streaming_aead`
    4      length of a segment with its tag, big-endian
    2 + n  name of the transit key, UTF-8, after its length, big-endian
    2 + n  the data key, wrapped by the transit key (`vault:v3:…`, which says the version), after its length
    ...    the ciphertext, with the data key; the associated data is all of the above but the wrapped key, and then
           the caller's

Every stream has a data key of its own or shares one with others of the same envelope; either way only who may decrypt
with the transit key can open it. Nothing of the header can be changed unnoticed: the wrapped key is authenticated by
the transit key. It is not part of the associated data, so that it can be wrapped anew, by a newer version of the
transit key, while the ciphertext stays as it is. In version 1 it was part of it; such streams are still opened.
"""

from dataclasses import dataclass, field, replace
from typing import NoReturn

from strongroom_client.streaming_aead import (
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    Decryptor,
    Encryptor,
    StreamError,
)

MAGIC = b"SRST"
VERSION = 2
_VERSIONS = (1, 2)
AES256_GCM_HKDF = 1
SEGMENT_BYTES = 64 << 10
_FIXED = len(MAGIC) + 1 + 1 + 4


@dataclass(frozen=True, slots=True)
class Header:
    """What a stream says of itself.

    Args:
        key_name: of the transit key.
        wrapped_key: the data key, as the transit key wrapped it.
        segment_bytes: of a segment with its tag.
        version: of the format.
    """

    key_name: str
    wrapped_key: str
    segment_bytes: int = SEGMENT_BYTES
    version: int = VERSION

    @property
    def key_version(self) -> int:
        """The version of the transit key that wrapped the data key; 0 where that is not said."""
        parts = self.wrapped_key.split(":")
        text = parts[1].removeprefix("v") if len(parts) == 3 else ""
        return int(text) if text.isdigit() else 0

    def encode(self) -> bytes:
        """Returns the bytes before the ciphertext."""
        return self._stable() + _counted(self.wrapped_key.encode())

    def rewrapped(self, wrapped_key: str) -> "Header":
        """Returns the header with the same data key wrapped anew; the ciphertext behind it stays as it is.

        Raises:
            StreamError: the stream is of version 1, whose ciphertext knows its header.
        """
        if self.version == 1:
            raise StreamError(
                "a stream of version 1 has to be encrypted anew to get another header"
            )
        return replace(self, wrapped_key=wrapped_key)

    def encryptor(self, data_key: bytes, associated_data: bytes = b"") -> Encryptor:
        """Returns what makes the ciphertext behind this header."""
        return Encryptor(data_key, self._bound() + associated_data, self.segment_bytes)

    def decryptor(self, data_key: bytes, associated_data: bytes = b"") -> Decryptor:
        """Returns what opens the ciphertext behind this header."""
        return Decryptor(data_key, self._bound() + associated_data, self.segment_bytes)

    def _stable(self) -> bytes:
        """Returns what of the header never changes."""
        fixed = bytes([self.version, AES256_GCM_HKDF]) + self.segment_bytes.to_bytes(4, "big")
        return MAGIC + fixed + _counted(self.key_name.encode())

    def _bound(self) -> bytes:
        """Returns what of the header the ciphertext is bound to."""
        return self.encode() if self.version == 1 else self._stable()


@dataclass(slots=True)
class HeaderReader:
    """Reads a header from pieces of any length."""

    _held: bytearray = field(default_factory=bytearray)

    def update(self, data: bytes) -> tuple[Header, bytes] | None:
        """Takes the next piece; returns the header and what came behind it, once it is whole.

        Raises:
            StreamError: this is no such stream.
        """
        self._held += data
        if self._held[: len(MAGIC)] != MAGIC[: len(self._held)]:
            raise StreamError("this is not an encrypted stream")
        if len(self._held) < _FIXED:
            return None
        version, construction = self._held[4], self._held[5]
        if version not in _VERSIONS or construction != AES256_GCM_HKDF:
            raise StreamError("the stream is of a version that is not known here")
        segment_bytes = int.from_bytes(self._held[6:_FIXED], "big")
        if not MIN_SEGMENT_BYTES <= segment_bytes <= MAX_SEGMENT_BYTES:
            raise StreamError("the header is damaged")
        name = self._part(_FIXED)
        wrapped = self._part(name[1]) if name is not None else None
        if name is None or wrapped is None:
            return None
        rest = bytes(self._held[wrapped[1] :])
        self._held.clear()
        return Header(name[0], wrapped[0], segment_bytes, version), rest

    def finalize(self) -> NoReturn:
        """Raises StreamError: the stream ended within its header."""
        raise StreamError("the stream is cut off")

    def _part(self, start: int) -> tuple[str, int] | None:
        """Returns a counted text and where it ends; None where it is not all there."""
        length = int.from_bytes(self._held[start : start + 2], "big")
        end = start + 2 + length
        if len(self._held) < end or len(self._held) < start + 2:
            return None
        try:
            return self._held[start + 2 : end].decode(), end
        except UnicodeDecodeError:
            raise StreamError("the header is damaged") from None


def _counted(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text

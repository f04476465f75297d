"""The format of encrypted streams and files, the same from the server (`StreamCipherService`) and from this package.

    bytes  what
    4      "SRST"
    1      1, the version of this format
    1      1, AES256-GCM-HKDF in segments; see `streaming_aead`
    4      length of a segment with its tag, big-endian
    2 + n  name of the transit key, UTF-8, after its length, big-endian
    2 + n  the data key, wrapped by the transit key (`vault:v3:…`, which says the version), after its length
    ...    the ciphertext, with the data key; the associated data is all of the above, and then the caller's

Every stream has a data key of its own or shares one with others of the same envelope; either way only who may decrypt
with the transit key can open it. Nothing of the header can be changed unnoticed.
"""

from dataclasses import dataclass, field

from strongroom_client.streaming_aead import (
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    Decryptor,
    Encryptor,
    StreamError,
)

MAGIC = b"SRST"
VERSION = 1
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
    """

    key_name: str
    wrapped_key: str
    segment_bytes: int = SEGMENT_BYTES

    @property
    def key_version(self) -> int:
        """The version of the transit key that wrapped the data key; 0 where that is not said."""
        parts = self.wrapped_key.split(":")
        text = parts[1].removeprefix("v") if len(parts) == 3 else ""
        return int(text) if text.isdigit() else 0

    def encode(self) -> bytes:
        """Returns the bytes before the ciphertext."""
        fixed = MAGIC + bytes([VERSION, AES256_GCM_HKDF]) + self.segment_bytes.to_bytes(4, "big")
        return fixed + _counted(self.key_name.encode()) + _counted(self.wrapped_key.encode())

    def encryptor(self, data_key: bytes, associated_data: bytes = b"") -> Encryptor:
        """Returns what makes the ciphertext behind this header."""
        return Encryptor(data_key, self.encode() + associated_data, self.segment_bytes)

    def decryptor(self, data_key: bytes, associated_data: bytes = b"") -> Decryptor:
        """Returns what opens the ciphertext behind this header."""
        return Decryptor(data_key, self.encode() + associated_data, self.segment_bytes)


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
        if (version, construction) != (VERSION, AES256_GCM_HKDF):
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
        return Header(name[0], wrapped[0], segment_bytes), rest

    def finalize(self) -> None:
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

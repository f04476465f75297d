"""Paths and values as they stand in etcd.

A sealed value is: version (1 byte, 1), term (4 bytes, big-endian), nonce (12 random bytes), AES-256-GCM
ciphertext with tag (NIST SP 800-38D); the whole storage key is associated data, so that a value copied to
another key does not open. Random nonces allow 2**32 values a term; rotation begins a new one.

A segment that is not `Plain` becomes `~` and the base64url of its AES-SIV ciphertext (RFC 5297) with the service
as associated data: deterministic, so that it can be looked up and prefixes list.
"""

import base64
import binascii
import os
import re
import struct

from cryptography.exceptions import InvalidTag

from strongroom_runtime.barrier.keyring import KeyHolder, KeyRing
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.storage import Path, Plain

_VERSION = 1
_HEADER = struct.Struct(">BI12s")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_MARK = "~"
# Of a path: more than the path of a request has, and in its longest form less than a request to etcd may have.
_MOST_CHARACTERS = 100_000
# Bytes that the objects of one take, however long it is.
_NAME_OBJECTS, _PATH_OBJECTS = 200, 400


class BarrierCodec:
    """Implements `Codec` for one service.

    Args:
        service: the first segment of all its keys, such as `kv`.
        keys: where the ring is while the process is unsealed.
    """

    def __init__(self, service: str, keys: KeyHolder) -> None:
        self._service = service.encode()
        self._root = f"{service}/"
        self._keys = keys

    def encode_path(self, path: Path) -> bytes:
        """Returns the storage key of a path.

        Raises:
            ServiceError: SEALED; INVALID for one that is longer than etcd takes.
            ValueError: an empty segment, or a `Plain` one with other characters than it may have.
        """
        name = (path, *map(type, path))
        return self._keys.paths.get(name) or self._key(path, name)

    def _key(self, path: Path, name: tuple[object, ...]) -> bytes:
        ring = self._keys.ring  # sealed is sealed, even for a path without a name in it
        if sum(map(len, path)) > _MOST_CHARACTERS:
            raise invalid(f"a name or path may have at most {_MOST_CHARACTERS} characters")
        names = self._keys.segments
        segments = [
            _checked(segment)
            if type(segment) is Plain
            else names.get(segment) or self._encode(ring, segment)
            for segment in path
        ]
        key = (self._root + "/".join(segments)).encode()
        self._keys.paths.keep(name, key, _size(key) + _PATH_OBJECTS)
        return key

    def encode_prefix(self, path: Path) -> bytes:
        """Returns what all keys below a path begin with; it ends with a slash."""
        return self.encode_path(path) + b"/" if path else self._root.encode()

    def decode_path(self, key: bytes) -> Path:
        """Returns the path of a storage key.

        Raises:
            ServiceError: SEALED, or INTERNAL for a key that this barrier did not make.
        """
        text = key.decode(errors="replace")
        if not text.startswith(self._root):
            raise _foreign()
        known = self._keys.names
        return tuple(
            known.get(segment) or self._decode(segment)
            for segment in text[len(self._root) :].split("/")
        )

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Returns a value as it stands in etcd under a storage key."""
        ring = self._keys.ring
        nonce = os.urandom(12)
        header = _HEADER.pack(_VERSION, ring.active_term, nonce)
        return header + ring.active.encrypt(nonce, value, key)

    def open(self, key: bytes, sealed: bytes) -> bytes:
        """Returns what was sealed under a storage key.

        Raises:
            ServiceError: SEALED, or INTERNAL where it was altered or moved.
        """
        ring = self._keys.ring
        if len(sealed) < _HEADER.size or sealed[0] != _VERSION:
            raise ServiceError(Kind.INTERNAL, "a stored value does not open")
        _, term, nonce = _HEADER.unpack_from(sealed)
        return ring.decrypt(term, nonce, sealed[_HEADER.size :], key)

    def _encode(self, ring: KeyRing, segment: str) -> str:
        if not segment:
            raise ValueError("a path has no empty segments")
        ciphertext = ring.names.encrypt(segment.encode(), [self._service])
        encoded = _MARK + base64.urlsafe_b64encode(ciphertext).rstrip(b"=").decode()
        self._keys.segments.keep(segment, encoded, _size(encoded) + _NAME_OBJECTS)
        return encoded

    def _decode(self, segment: str) -> str:
        ring = self._keys.ring
        if segment.startswith(_MARK):
            name = self._decrypt(ring, segment[1:])
        elif _PLAIN.fullmatch(segment):
            name = Plain(segment)
        else:
            raise _foreign()
        self._keys.names.keep(segment, name, _size(segment) + _NAME_OBJECTS)
        return name

    def _decrypt(self, ring: KeyRing, text: str) -> str:
        try:
            ciphertext = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return ring.names.decrypt(ciphertext, [self._service]).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise _foreign() from None


def _checked(segment: str) -> str:
    """Returns a plain segment, if it may stand in a key as it is."""
    if not _PLAIN.fullmatch(segment):
        raise ValueError("a plain segment may hold letters, digits, '.', '-' and '_' only")
    return segment


def _size(encoded: str | bytes) -> int:
    """Returns how many bytes names take at the most together with their encoded form, beside the objects.

    A text takes up to four bytes a character, where one of them is rare; base64 a third more than its UTF-8.
    """
    return 4 * len(encoded)


def _foreign() -> ServiceError:
    return ServiceError(Kind.INTERNAL, "a storage key was not made by this barrier")

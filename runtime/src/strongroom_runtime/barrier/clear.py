"""Paths and values as they are, for the one service that must read its state before there are keys."""

import re

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Path, Plain

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


class ClearCodec:
    """Implements `Codec` without encryption. The seal service seals its values itself.

    Names cannot be hidden without keys, so every segment must be `Plain`.
    """

    def __init__(self, service: str) -> None:
        self._root = f"{service}/"

    def encode_path(self, path: Path) -> bytes:
        """Returns the storage key of a path.

        Raises:
            ValueError: a segment that is not `Plain`, or has other characters than it may have.
        """
        for segment in path:
            if not isinstance(segment, Plain) or not _PLAIN.fullmatch(segment):
                raise ValueError("a path without encryption has plain segments only")
        return (self._root + "/".join(path)).encode()

    def encode_prefix(self, path: Path) -> bytes:
        """Returns what all keys below a path begin with; it ends with a slash."""
        return self.encode_path(path) + b"/" if path else self._root.encode()

    def decode_path(self, key: bytes) -> Path:
        """Returns the path of a storage key.

        Raises:
            ServiceError: INTERNAL for a key of another service.
        """
        text = key.decode(errors="replace")
        if not text.startswith(self._root):
            raise ServiceError(Kind.INTERNAL, "a storage key belongs to another service")
        return tuple(Plain(segment) for segment in text[len(self._root) :].split("/"))

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Returns the value."""
        return value

    def open(self, key: bytes, sealed: bytes) -> bytes:
        """Returns the value."""
        return sealed

"""How a store turns paths into keys and values into what etcd may see. The barrier implements it."""

from typing import Protocol

from strongroom_runtime.storage import Path, Plain


class Codec(Protocol):
    """Encodes for one service; all keys begin with the service's prefix."""

    def encode_path(self, path: Path) -> bytes:
        """Returns the storage key of a path."""
        ...

    def encode_prefix(self, path: Path) -> bytes:
        """Returns what the keys of everything below a path begin with; it ends with a slash."""
        ...

    def decode_path(self, key: bytes) -> Path:
        """Returns the path of a storage key."""
        ...

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Returns a value as it stands in etcd under a key."""
        ...

    def open(self, key: bytes, sealed: bytes) -> bytes:
        """Returns what was sealed under a key.

        Raises:
            ServiceError: INTERNAL where it was sealed under another key or altered.
        """
        ...


class RawCodec:
    """Keys and values as they are, for the service that guards its own before there are any keys.

    Args:
        service: the first segment of all its keys. Paths hold `Plain` segments only.
    """

    def __init__(self, service: str) -> None:
        self._root = f"{service}/"

    def encode_path(self, path: Path) -> bytes:
        """Returns the storage key of a path.

        Raises:
            ValueError: a segment is not `Plain`, and would stand in the clear.
        """
        if not all(isinstance(segment, Plain) for segment in path):
            raise ValueError("an unencrypted store takes plain segments only")
        return (self._root + "/".join(path)).encode()

    def encode_prefix(self, path: Path) -> bytes:
        """Returns what the keys of everything below a path begin with."""
        return self.encode_path(path) + b"/" if path else self._root.encode()

    def decode_path(self, key: bytes) -> Path:
        """Returns the path of a storage key."""
        return tuple(Plain(segment) for segment in key.decode()[len(self._root) :].split("/"))

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Returns the value."""
        return value

    def open(self, key: bytes, sealed: bytes) -> bytes:
        """Returns the value."""
        return sealed

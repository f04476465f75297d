"""How a store turns paths into keys and values into what etcd may see. The barrier implements it."""

from typing import Protocol

from strongroom_runtime.storage import Path


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

"""Values as they stand in audit entries: every text is an HMAC, unless its key is known to be harmless."""

from typing import Any

import msgspec

from strongroom_runtime.text_hash import TextHash

# Answers of any size are audited, but only so many texts of one are hashed one by one.
_MANY = 50_000
_UNHASHED = frozenset({type(None), bool, int, float})


class Hasher:
    """Hashes for one device.

    Args:
        salt: of the device.
    """

    def __init__(self, salt: bytes) -> None:
        self._hash = TextHash(salt).of
        self._kept: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Hasher(…)"

    def text(self, value: str) -> str:
        """Returns the HMAC of a text. The empty text stays as it is."""
        return self._hash(value) if value else value

    def handle(self, value: str) -> str:
        """The same for tokens and accessors, which come again and again."""
        known = self._kept.get(value)
        if known is None:
            if len(self._kept) > 10_000:
                self._kept.clear()
            known = self._kept[value] = self.text(value)
        return known

    def value(self, value: Any, plain: frozenset[str] = frozenset()) -> Any:
        """Returns a value with every text in it hashed, however deep; keys, numbers and switches stay.

        Args:
            value: anything that JSON can say, `msgspec.Raw` included.
            plain: keys whose texts stay as they are.
        """
        try:
            return self._walk(value, plain)
        except (RecursionError, msgspec.DecodeError, TypeError, ValueError):
            # Logging must not fail on a shape, nor let it through as it is.
            return self.text(repr(type(value)))

    def _walk(self, value: Any, plain: frozenset[str]) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind in _UNHASHED:
            return value
        if kind is dict:
            return {
                key: each if key in plain and _harmless(each) else self._walk(each, plain)
                for key, each in value.items()
            }
        if kind is list or kind is tuple:
            if len(value) > _MANY:
                return self.text(msgspec.json.encode(value).decode(errors="replace"))
            return [self._walk(each, plain) for each in value]
        if kind is msgspec.Raw:
            return self._walk(msgspec.json.decode(value), plain)
        if kind is bytes:
            return self.text(value.hex())
        raise TypeError


def _harmless(value: Any) -> bool:
    """Returns whether a value that may stand in the clear is a text or a list of texts."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )

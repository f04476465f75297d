"""Values as they stand in audit entries: every text is an HMAC, unless its key is known to be harmless."""

import hashlib
import secrets
from binascii import b2a_base64
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from strongroom_runtime.text_hash import TextHash

# Answers of any size are audited, but only so many texts of one are hashed one by one.
_MANY = 50_000
_UNHASHED = frozenset({type(None), bool, int, float, msgspec.UnsetType})
_TEXTS, _OBJECTS, _TEXTUAL = {str}, {dict}, {str, bytes}
# Documents that are kept in their hashed form: how large, and how much of them in all.
_KEPT_DOCUMENT, _KEPT_BYTES = 16 << 10, 32 << 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


class Hasher:
    """Hashes for one device.

    Documents that are read again and again are hashed once. What is kept is what the log says of them, found by a
    keyed digest: neither holds a plaintext.

    Args:
        salt: of the device.
    """

    def __init__(self, salt: bytes) -> None:
        self._hash = TextHash(salt).of
        self._digest = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=32)
        self._kept: dict[tuple[bytes, frozenset[str]], bytes] = {}
        self._kept_bytes = 0

    def __repr__(self) -> str:
        return "Hasher(…)"

    def text(self, value: str) -> str:
        """Returns the HMAC of a text. The empty text stays as it is."""
        return self._hash(value) if value else value

    def json(self, value: Any, plain: frozenset[str] = frozenset()) -> bytes:
        """Returns a value as JSON with every text in it hashed, however deep; keys, numbers and switches stay.

        Args:
            value: anything that JSON can say, `msgspec.Raw` included.
            plain: keys whose texts stay as they are.
        """
        try:
            return _encode(self._walk(value, plain))
        except (RecursionError, msgspec.MsgspecError, TypeError, ValueError, OverflowError):
            # Logging must not fail on a shape, nor let it through as it is.
            return _encode(self.text(repr(type(value))))

    def document(self, document: msgspec.Raw, plain: frozenset[str] = frozenset()) -> bytes:
        """Returns the same of a JSON document, which may well come again."""
        data = memoryview(document)
        if len(data) > _KEPT_DOCUMENT:
            return self.json(document, plain)
        digest = self._digest.copy()
        digest.update(data)
        name = (digest.digest(), plain)
        known = self._kept.get(name)
        if known is None:
            known = self.json(document, plain)
            self._keep(name, known)
        return known

    def _keep(self, name: tuple[bytes, frozenset[str]], hashed: bytes) -> None:
        if self._kept_bytes > _KEPT_BYTES:
            self._kept.clear()  # what is in use comes back at once
            self._kept_bytes = 0
        self._kept[name] = hashed
        self._kept_bytes += len(hashed) + 200  # about what the objects themselves take

    def _walk(self, value: Any, plain: frozenset[str]) -> Any:
        kind = type(value)
        if kind is str:
            return self._hash(value) if value else value
        if kind in _UNHASHED:
            return value
        if kind is dict:
            return self._members(value, plain)
        if kind is list or kind is tuple:
            if len(value) > _MANY:
                return self.text(_encode(value).decode(errors="replace"))
            kinds = set(map(type, value))
            if kinds == _TEXTS:
                hash_of = self._hash
                return [hash_of(each) if each else each for each in value]
            if kinds == _OBJECTS:
                members = self._members
                return [members(each, plain) for each in value]
            first = type(value[0]) if value else None
            if first is not None and kinds == {first} and issubclass(first, msgspec.Struct):
                return self._rows(value, first, plain)
            return [self._walk(each, plain) for each in value]
        if kind is msgspec.Raw:
            return self._walk(_decode(value), plain)
        if kind is bytes:
            return self.text(value.hex())
        raise TypeError

    def _rows(
        self, rows: Sequence[Any], kind: type[msgspec.Struct], plain: frozenset[str]
    ) -> list[Any]:
        """Returns rows with their values hashed, column by column: texts, and bytes as the base64 that JSON has."""
        columns = []
        for name in kind.__struct_fields__:
            column = list(map(attrgetter(name), rows))
            kinds = set(map(type, column))
            if bytes in kinds:
                column = [_base64(each) if type(each) is bytes else each for each in column]
            if kinds <= _TEXTUAL and name not in plain:
                hash_of = self._hash
                column = [hash_of(each) if each else each for each in column]
            elif not kinds <= _UNHASHED and name not in plain:
                column = [self._walk(each, plain) for each in column]
            columns.append(column)
        return list(map(kind, *columns))

    def _members(self, value: dict[Any, Any], plain: frozenset[str]) -> dict[Any, Any]:
        """Returns an object with its values hashed. Batches have very many texts: none costs a call more."""
        hash_of, shown = self._hash, {}
        for key, each in value.items():
            kind = type(each)
            if kind is str:
                shown[key] = hash_of(each) if each and key not in plain else each
            elif kind in _UNHASHED or (key in plain and _harmless(each)):
                shown[key] = each
            else:
                shown[key] = self._walk(each, plain)
        return shown


def _base64(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


def _harmless(value: Any) -> bool:
    """Returns whether a value that may stand in the clear is a text or a list of texts."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )

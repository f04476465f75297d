"""How many fields a message has, before it is parsed.

A list's empty message is two bytes on the wire and two hundred in memory: what anybody may send must not grow like
that. Over HTTP bodies are bounded in the same way.
"""

from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor

MOST_FIELDS = 1_000_000
_LEAST_BYTES = 2  # of a field that is counted: its tag and its length
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # Protocol Buffers documentation, "Encoding"


@dataclass(slots=True)
class Shape:
    """The fields of a message type that are messages, by their numbers."""

    inner: dict[int, "Shape"] = field(default_factory=dict)

    @classmethod
    def of(cls, descriptor: Descriptor) -> "Shape":
        """Returns the shape of a message type, which must not contain itself."""
        types = ((each.number, each.message_type) for each in descriptor.fields)
        return cls({number: cls.of(kind) for number, kind in types if kind is not None})


def has_too_many_fields(data: bytes, shape: Shape, most: int = MOST_FIELDS) -> bool:
    """Returns whether a message has too many texts, bytes and messages in it, however deep.

    Args:
        data: as it came; where it is malformed, parsing will say so.
        shape: of its type.
        most: how many there may be.
    """
    if len(data) <= _LEAST_BYTES * most:
        return False
    try:
        return _left(data, 0, len(data), shape.inner, most) < 0
    except IndexError:
        return False


def _left(data: bytes, at: int, end: int, inner: dict[int, Shape], left: int) -> int:
    """Returns how many more fields there may be behind a part of a message; less than none where it has too many."""
    while at < end and left >= 0:
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, at - 1)
        kind = tag & 7
        if kind == _BYTES:
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = _varint(data, at - 1)
            left -= 1
            shape = inner.get(tag >> 3)
            if size and shape is not None:
                left = _left(data, at, min(at + size, end), shape.inner, left)
            at += size
        elif kind == _VARINT:
            while data[at] >= 0x80:
                at += 1
            at += 1
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        # What is left begins and ends groups, whose fields nobody knows: they are counted like others.
    return left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] >= 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1

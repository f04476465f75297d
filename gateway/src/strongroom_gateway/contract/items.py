"""Lists of messages in bodies, such as the items of a batch: read in one step where they are as the contract says.

What clients may write otherwise (numbers as text, null for nothing, line ends in base64) is left to the readers of
single fields, which also say what is wrong with a list.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.fields import Field

_INT64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_TYPES: dict[int, Any] = {
    FieldDescriptor.TYPE_BYTES: bytes,
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_BOOL: bool,
}

# (raw JSON): returns the fields of each message, as its constructor takes them; None where there are no messages, or
# they must be read singly.
ItemsReader = Callable[[msgspec.Raw], list[dict[str, Any]] | None]


def items_reader(descriptor: Descriptor) -> ItemsReader | None:
    """Returns what reads lists of a message type; None for types that have more than plain fields."""
    types: dict[str, Any] = {}
    for field in map(Field.of, descriptor.fields):
        if field.format == options.FORMAT_MALFORMED:
            continue  # is said of an item, never by it
        if (
            field.format
            or field.aliases
            or field.is_repeated
            or field.descriptor.type not in _TYPES
        ):
            return None
        types[field.name] = _TYPES[field.descriptor.type]
    new: Any = TypedDict  # which type checkers want to know all about
    item: Any = list[new(descriptor.name, types, total=False)]  # type: ignore[misc]
    decode = msgspec.json.Decoder(item).decode

    def read(raw: msgspec.Raw) -> list[dict[str, Any]] | None:
        try:
            items: list[dict[str, Any]] = decode(raw)
        except msgspec.ValidationError:
            return None
        return items or None

    return read

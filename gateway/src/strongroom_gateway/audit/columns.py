"""Messages of streams in audit entries: of the items of a batch one list for each field, which costs the least.

Texts and bytes stand there as in the entries of single requests, so that `sys/audit-hash` finds them: bytes as the
HMAC of their base64.
"""

import binascii
from collections.abc import Callable, Collection
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from strongroom_gateway.contract.encode import ResponsePlan
from strongroom_gateway.contract.fields import Field

_NUMBERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_DOUBLE,
        FieldDescriptor.CPPTYPE_FLOAT,
        FieldDescriptor.CPPTYPE_BOOL,
        FieldDescriptor.CPPTYPE_ENUM,
    }
)
Column = Callable[[Any], Any]


class Columns:
    """How messages of one type are written.

    Args:
        descriptor: of the type.
        without: fields that the path says already.
    """

    def __init__(self, descriptor: Descriptor, without: Collection[str] = ()) -> None:
        fields = [Field.of(each) for each in descriptor.fields if each.name not in without]
        self._scalars = [(f.name, _scalar(f)) for f in fields if _is_scalar(f)]
        self._items = [(f.name, _columns(f)) for f in fields if _is_items(f)]
        others = [f.name for f in fields if not _is_scalar(f) and not _is_items(f)]
        self._others = frozenset(others)
        self._plan = ResponsePlan(descriptor) if others else None

    def of(self, message: Message) -> dict[str, Any]:
        """Returns the fields that are set; for each list of items their number and one list for each field."""
        result: dict[str, Any] = {}
        for name, text in self._scalars:
            value = text(getattr(message, name))
            if value:
                result[name] = value
        for name, columns in self._items:
            items = list(getattr(message, name))
            listed: dict[str, Any] = {"count": len(items)}
            for field, column in columns:
                values = column(items)
                if any(values):
                    listed[field] = values
            result[name] = listed
        if self._plan is not None:
            written = self._plan.fields(message)
            result.update((k, v) for k, v in written.items() if k in self._others and v)
        return result


def _is_scalar(field: Field) -> bool:
    return field.descriptor.message_type is None and not field.is_repeated


def _is_items(field: Field) -> bool:
    message = field.descriptor.message_type
    return (
        message is not None
        and field.is_repeated
        and not field.is_map
        and all(_is_scalar(Field.of(each)) for each in message.fields)
    )


def _scalar(field: Field) -> Column:
    if field.descriptor.type == FieldDescriptor.TYPE_BYTES:
        return _base64
    if field.descriptor.cpp_type in _NUMBERS and field.sensitive:
        return lambda value: str(value) if value else ""  # texts are hashed
    return lambda value: value


def _columns(field: Field) -> list[tuple[str, Column]]:
    return [(each.name, _column(Field.of(each))) for each in field.message.fields]


def _column(field: Field) -> Column:
    name = field.name
    if field.descriptor.type == FieldDescriptor.TYPE_BYTES:
        to_text = binascii.b2a_base64
        return lambda items: [
            to_text(v, newline=False).decode() if (v := getattr(i, name)) else "" for i in items
        ]
    if field.sensitive:
        scalar = _scalar(field)
        return lambda items: [scalar(getattr(item, name)) for item in items]
    return lambda items: [getattr(item, name) for item in items]


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()

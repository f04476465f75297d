"""Lists of messages for JSON, such as the results of a batch: field by field, which costs the least."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from strongroom_gateway.contract.fields import ABSENT, Field, is_simple, scalar_writer

# (messages): returns what msgspec writes as the JSON of each.
Rows = Callable[[list[Any]], list[Any]]


def rows_of(descriptor: Descriptor) -> Rows | None:
    """Returns what makes rows of messages of a type; None for types that have more than simple fields."""
    fields = [Field.of(each) for each in descriptor.fields]
    if not fields or not all(map(is_simple, fields)):
        return None
    kinds = [(field.name, Any, msgspec.UNSET) for field in fields]
    row = msgspec.defstruct(descriptor.name, kinds, gc=False)
    columns = [_column(field) for field in fields]
    return lambda messages: list(map(row, *(column(messages) for column in columns)))


def _column(field: Field) -> Rows:
    name, get, optional = field.name, attrgetter(field.name), field.has_presence
    absent = ABSENT.get(field.format, msgspec.UNSET)
    plain_bytes = field.descriptor.type == FieldDescriptor.TYPE_BYTES and not field.format
    convert = None if plain_bytes else scalar_writer(field)  # msgspec writes bytes as base64

    def column(messages: list[Any]) -> list[Any]:
        values = list(map(get, messages))
        if optional and not all(values):
            # What is not its default is set; to ask costs more than to read.
            values = [
                value if value or message.HasField(name) else absent
                for value, message in zip(values, messages, strict=True)
            ]
        if convert is not None:
            values = [convert(value) if value is not absent else absent for value in values]
        return values

    return column

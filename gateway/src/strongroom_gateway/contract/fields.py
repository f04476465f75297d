"""One field of a message, from JSON and to JSON.

Clients are generous with types, as Vault lets them be: numbers and booleans may come as text, lists as text with
commas, maps as k=v. What does not fit is an error that names the field and never the value.
"""

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from strongroom.options.v1 import options_pb2 as options
from strongroom_runtime.durations import format_seconds, parse_exact_seconds, parse_seconds
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import key_values
from strongroom_runtime.tools import base64_bytes

# Formats of seconds that are taken as a number or as text such as 1h30m.
SECONDS = (
    options.FORMAT_SECONDS,
    options.FORMAT_DURATION_TEXT,
    options.FORMAT_SYSTEM_SECONDS,
    options.FORMAT_DURATION_OR_OFF,
)
_TRUE = {"1", "t", "true", "yes", "on"}
_FALSE = {"0", "f", "false", "no", "off", ""}
# By type, what its fields hold.
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: range(-(1 << 31), 1 << 31),
    FieldDescriptor.TYPE_INT64: range(-(1 << 63), 1 << 63),
    FieldDescriptor.TYPE_UINT32: range(1 << 32),
    FieldDescriptor.TYPE_UINT64: range(1 << 64),
    FieldDescriptor.TYPE_SINT32: range(-(1 << 31), 1 << 31),
    FieldDescriptor.TYPE_SINT64: range(-(1 << 63), 1 << 63),
}
TIMESTAMP = "google.protobuf.Timestamp"
# What stands in JSON for a field that is not set; nothing for those of other formats.
ABSENT: dict[int, Any] = {
    options.FORMAT_NULL_WHEN_UNSET: None,
    options.FORMAT_EMPTY_WHEN_UNSET: "",
}


@dataclass(frozen=True, slots=True)
class Field:
    """What the contract says of a field."""

    name: str
    descriptor: FieldDescriptor
    format: int
    envelope: int
    aliases: tuple[str, ...]
    sensitive: bool
    audit_plain: bool

    @classmethod
    def of(cls, descriptor: FieldDescriptor) -> "Field":
        """Reads a field's options."""
        given = descriptor.GetOptions().Extensions
        return cls(
            descriptor.name,
            descriptor,
            given[options.format],
            given[options.envelope],
            tuple(given[options.aliases]),
            given[options.sensitive],
            given[options.audit_plain],
        )

    @property
    def message(self) -> Descriptor:
        """The message type of a message field or map.

        Raises:
            TypeError: it is a scalar.
        """
        if self.descriptor.message_type is None:
            raise TypeError(f"{self.descriptor.full_name} is not a message")
        return self.descriptor.message_type

    @property
    def enum(self) -> EnumDescriptor:
        """The type of an enum field.

        Raises:
            TypeError: it is none.
        """
        if self.descriptor.enum_type is None:
            raise TypeError(f"{self.descriptor.full_name} is not an enum")
        return self.descriptor.enum_type

    @property
    def map_value(self) -> "Field":
        """The value of a map."""
        return Field.of(self.message.fields_by_name["value"])

    @property
    def is_map(self) -> bool:
        """Whether it is a map."""
        message = self.descriptor.message_type
        return message is not None and bool(message.GetOptions().map_entry)

    @property
    def is_repeated(self) -> bool:
        """Whether it is a list."""
        return bool(self.descriptor.is_repeated) and not self.is_map

    @property
    def is_list_message(self) -> bool:
        """Whether it is a message that stands for a list."""
        return is_list(self.descriptor.message_type)

    @property
    def has_presence(self) -> bool:
        """Whether absent and zero are told apart."""
        return bool(self.descriptor.has_presence)


def is_list(message: Descriptor | None) -> bool:
    """Returns whether a message's one field is `repeated values`: in JSON it is the list itself."""
    return message is not None and [f.name for f in message.fields] == ["values"]


def is_simple(field: Field) -> bool:
    """Returns whether a field is one scalar, whose name is there even where its value is not set, or set to zero."""
    return (
        field.descriptor.message_type is None
        and not field.is_repeated
        and field.format != options.FORMAT_OMIT_EMPTY
    )


def scalar_reader(field: Field) -> Callable[[Any], Any]:
    """Returns what turns a JSON value into a value of a scalar field.

    Raises:
        ServiceError: (the function) INVALID.
    """
    kind = field.descriptor.type
    name = field.name
    if field.format == options.FORMAT_DURATION_OR_OFF:
        return lambda value: -1 if _is_negative(value) else _seconds(value, name)
    if field.format in SECONDS:
        return lambda value: _seconds(value, name)
    if kind == FieldDescriptor.TYPE_STRING:
        return lambda value: value if type(value) is str else _text(value, name)
    if kind == FieldDescriptor.TYPE_BOOL:
        return lambda value: _boolean(value, name)
    if kind in _INTEGERS:
        held = _INTEGERS[kind]
        return lambda value: _integer(value, held, name)
    if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return lambda value: _number(value, name)
    if kind == FieldDescriptor.TYPE_BYTES:
        return partial(_bytes, name)
    if kind == FieldDescriptor.TYPE_ENUM:
        return lambda value: _enum(value, field)
    raise TypeError(f"{field.descriptor.full_name}: no JSON form for this type")


def scalar_writer(field: Field) -> Callable[[Any], Any] | None:
    """Returns what turns a scalar into a JSON value, or None where it is one."""
    if field.format == options.FORMAT_DURATION_TEXT:
        return format_seconds
    if field.format == options.FORMAT_DURATION_OR_OFF:
        return lambda value: "-1s" if value < 0 else format_seconds(value)
    if field.format in (options.FORMAT_JSON, options.FORMAT_INLINE):
        return lambda value: msgspec.Raw(value or b"null")
    kind = field.descriptor.type
    if kind == FieldDescriptor.TYPE_BYTES:
        return lambda value: binascii.b2a_base64(value, newline=False).decode("ascii")
    if kind == FieldDescriptor.TYPE_ENUM:
        names = {v.number: _enum_name(field, v.name) for v in field.enum.values}
        return lambda value: names.get(value, "")
    return None


def read_list(value: Any, read: Callable[[Any], Any], name: str) -> list[Any]:
    """Returns a list from a JSON list, text with commas, or one value."""
    if value is None:
        return []
    if isinstance(value, str):
        return [read(part.strip()) for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        return [read(part) for part in value]
    if isinstance(value, Mapping):
        raise invalid(f"{name}: takes a list")
    return [read(value)]


def read_map(value: Any, read: Callable[[Any], Any], name: str) -> dict[str, Any]:
    """Returns a map from a JSON object, text with k=v and commas, or a list of k=v."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(key): read(each) for key, each in value.items()}
    pairs = value.split(",") if isinstance(value, str) else value
    wrong = f"{name}: takes an object, or text such as key=value"
    if not isinstance(pairs, list) or not all(isinstance(p, str) for p in pairs):
        raise invalid(wrong)
    try:
        found = key_values(pairs)
    except ValueError:
        raise invalid(wrong) from None
    return {key: read(each) for key, each in found.items()}


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise invalid(f"{name}: takes a text")


def _boolean(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else "?"
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise invalid(f"{name}: takes true or false")


def _integer(value: Any, held: range, name: str) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = int(value) if not isinstance(value, str) else int(value.strip() or "0", 10)
    except (TypeError, ValueError, OverflowError):
        raise invalid(f"{name}: takes a whole number") from None
    if number not in held:
        raise invalid(f"{name}: the number is too large")
    return number


def _number(value: Any, name: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise invalid(f"{name}: takes a number") from None


def _seconds(value: Any, name: str) -> int:
    if isinstance(value, str) and not value.strip():
        return 0
    try:
        if not isinstance(value, str | int | float):
            raise ValueError("takes seconds or a duration such as 1h30m")
        return parse_seconds(value)
    except ValueError as error:
        raise invalid(f"{name}: {error}") from None


def _is_negative(value: Any) -> bool:
    """Returns whether a span is less than none; one that is none is not, with whichever sign."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return text.startswith("-") and parse_exact_seconds(text[1:]) > 0
        except ValueError:
            return False  # `_seconds` says what is wrong with it
    return isinstance(value, int | float) and value < 0


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return base64_bytes(value)
        except ValueError:
            pass  # binascii.Error is one; another comes of characters beyond ASCII
    raise invalid(f"{name}: takes base64")


def _enum(value: Any, field: Field) -> int:
    for known in field.enum.values:
        if isinstance(value, str) and value.lower() == _enum_name(field, known.name):
            return int(known.number)
    names = ", ".join(_enum_name(field, v.name) for v in field.enum.values[1:])
    raise invalid(f"{field.name}: takes one of {names}")


def _enum_name(field: Field, name: str) -> str:
    """Returns a value's name as in JSON: without the prefix that proto names have, in lower case."""
    words = "".join(("_" + c if c.isupper() else c) for c in field.enum.name)
    return name.lower().removeprefix(words.lstrip("_").lower() + "_")

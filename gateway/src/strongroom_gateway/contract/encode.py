"""Response messages as JSON, and the parts of the envelope that they fill."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.fields import (
    ABSENT,
    TIMESTAMP,
    Field,
    is_simple,
    scalar_writer,
)
from strongroom_gateway.contract.rows import rows_of
from strongroom_runtime.timestamps import timestamp_rfc3339


class Encoded(msgspec.Struct):
    """A response, ready for the envelope.

    Args:
        data: JSON; None where there is nothing.
        fields: what that was made of, where it is no document: as values they are hashed sooner.
        auth: what a login or renewal gives.
        warnings: texts.
        lease_duration: seconds.
        lease_id: names a lease.
        renewable: whether the lease can be renewed.
        wrap_info: how a wrapped answer is opened.
        status: of HTTP, where it depends on the request; 0 where not.
    """

    data: msgspec.Raw | None = None
    fields: dict[str, Any] | None = None
    auth: dict[str, Any] | None = None
    warnings: list[str] | None = None
    lease_duration: int = 0
    lease_id: str = ""
    renewable: bool = False
    wrap_info: dict[str, Any] | None = None
    status: int = 0


_ENVELOPE: dict[int, str] = {
    options.ENVELOPE_AUTH: "auth",
    options.ENVELOPE_WARNINGS: "warnings",
    options.ENVELOPE_LEASE_DURATION: "lease_duration",
    options.ENVELOPE_LEASE_ID: "lease_id",
    options.ENVELOPE_RENEWABLE: "renewable",
    options.ENVELOPE_WRAP_INFO: "wrap_info",
    options.ENVELOPE_STATUS: "status",
}

_encode = msgspec.json.Encoder().encode

# (message, into): writes a field of a message into a dictionary.
Writer = Callable[[Any, dict[str, Any]], None]


class ResponsePlan:
    """How a message type is written."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._writers: list[Writer] = []
        # The same for JSON, into which lists of messages go as structs.
        self._json_writers: list[Writer] = []
        self._envelope: list[tuple[str, Writer]] = []
        self._document: str = ""
        simple: list[Field] = []  # that follow one another
        for field_descriptor in descriptor.fields:
            field = Field.of(field_descriptor)
            inline = field.format == options.FORMAT_INLINE
            if not field.envelope and not inline and is_simple(field):
                simple.append(field)
                continue
            self._add_simple(simple)
            simple = []
            if field.envelope:
                self._envelope.append((_ENVELOPE[field.envelope], _writer(field)))
            elif inline and field.is_map:
                self._add(_flatten_map(field))
            elif inline and field.descriptor.message_type is not None:
                self._add(_flatten(field))
            elif inline:
                self._document = field.name
            else:
                self._add(_writer(field), _rows_writer(field))
        self._add_simple(simple)

    def _add_simple(self, fields: list[Field]) -> None:
        if fields:
            self._add(_simple_writer(fields))

    def _add(self, writer: Writer, for_json: Writer | None = None) -> None:
        self._writers.append(writer)
        self._json_writers.append(for_json or writer)

    def fields(self, message: Message) -> dict[str, Any]:
        """Returns the fields of a message, those of the envelope left out."""
        result: dict[str, Any] = {}
        for write in self._writers:
            write(message, result)
        return result

    def encode(self, message: Message) -> Encoded:
        """Returns a response, ready for the envelope."""
        encoded = Encoded()
        if self._document:
            encoded.data = msgspec.Raw(getattr(message, self._document) or b"null")
        else:
            fields: dict[str, Any] = {}
            for write_json in self._json_writers:
                write_json(message, fields)
            if fields:
                encoded.data = msgspec.Raw(_encode(fields))
                encoded.fields = fields
        for attribute, write in self._envelope:
            part: dict[str, Any] = {}
            write(message, part)
            for value in part.values():
                if value:
                    setattr(encoded, attribute, value)
        return encoded


def _simple_writer(fields: list[Field]) -> Writer:
    """Returns what writes several scalars at once: batches have very many messages with a few."""
    names = [field.name for field in fields]
    get = attrgetter(
        *names, names[0]
    )  # a name more, which is not looked at: of one alone there would be no tuple
    plans = [
        (f.name, scalar_writer(f), f.has_presence, ABSENT.get(f.format, msgspec.UNSET))
        for f in fields
    ]

    def write(message: Any, into: dict[str, Any]) -> None:
        for (name, convert, optional, absent), value in zip(plans, get(message), strict=False):
            # What is not its default is set; to ask costs more than to read.
            if value or not optional or message.HasField(name):
                into[name] = value if convert is None else convert(value)
            elif absent is not msgspec.UNSET:
                into[name] = absent

    return write


def _writer(field: Field) -> Writer:
    name = field.name
    if field.is_map:
        return _map_writer(field)
    if field.descriptor.message_type is not None and not field.is_repeated:
        return _message_writer(field)
    convert = _converter(field)
    if field.format == options.FORMAT_OMIT_EMPTY:
        return _omitting(name, convert)
    if field.is_repeated:
        if convert is None:
            return lambda message, into: into.__setitem__(name, list(getattr(message, name)))
        each = convert
        return lambda message, into: into.__setitem__(
            name, [each(value) for value in getattr(message, name)]
        )
    return _simple_writer([field])


def _rows_writer(field: Field) -> Writer | None:
    """Returns what writes a list of messages for JSON; None where it has no form of its own there."""
    message = field.descriptor.message_type
    if not field.is_repeated or message is None or message.full_name == TIMESTAMP:
        return None
    rows = rows_of(message)
    if rows is None:
        return None
    name, omitted = field.name, field.format == options.FORMAT_OMIT_EMPTY

    def write(message: Any, into: dict[str, Any]) -> None:
        items = getattr(message, name)
        if items:
            into[name] = rows(list(items))
        elif not omitted:
            into[name] = []

    return write


def _omitting(name: str, convert: Callable[[Any], Any] | None) -> Writer:
    def write(message: Any, into: dict[str, Any]) -> None:
        values = getattr(message, name)
        if values:
            into[name] = list(values) if convert is None else [convert(each) for each in values]

    return write


def _converter(field: Field) -> Callable[[Any], Any] | None:
    message = field.descriptor.message_type
    if message is None:
        return scalar_writer(field)
    if message.full_name == TIMESTAMP:
        return timestamp_rfc3339
    return ResponsePlan(message).fields


def _message_writer(field: Field) -> Writer:
    name = field.name
    convert = _values if field.is_list_message else _converter(field)
    absent: Any = ABSENT.get(field.format, msgspec.UNSET)

    def write(message: Any, into: dict[str, Any]) -> None:
        if message.HasField(name):
            value = getattr(message, name)
            into[name] = value if convert is None else convert(value)
        elif absent is not msgspec.UNSET:
            into[name] = absent

    return write


def _values(message: Any) -> list[str]:
    return list(message.values)


def _map_writer(field: Field) -> Writer:
    name = field.name
    convert = _converter(field.map_value)
    if convert is None:
        # An empty map of texts is null, as in Vault, unless its field says otherwise; one of numbers is not.
        of_texts = field.map_value.descriptor.type == FieldDescriptor.TYPE_STRING
        stays = field.format == options.FORMAT_EMPTY_WHEN_UNSET or not of_texts
        empty: dict[str, Any] | None = {} if stays else None
        return lambda message, into: into.__setitem__(
            name, _in_order(dict(getattr(message, name))) or empty
        )
    each = convert
    return lambda message, into: into.__setitem__(
        name, {key: each(inner) for key, inner in _in_order(getattr(message, name)).items()}
    )


def _in_order(values: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Returns a map in the order of its keys, versions by their numbers: protobuf has none, and people read it."""
    return values if len(values) < 2 else dict(sorted(values.items(), key=_place))


def _place(item: tuple[Any, Any]) -> tuple[int, str]:
    key = str(item[0])
    return (len(key), key) if key.isdecimal() else (0, key)


def _flatten_map(field: Field) -> Writer:
    write = _map_writer(field)

    def flatten(message: Any, into: dict[str, Any]) -> None:
        part: dict[str, Any] = {}
        write(message, part)
        into.update(part[field.name] or {})

    return flatten


def _flatten(field: Field) -> Writer:
    plan = ResponsePlan(field.message)

    def flatten(message: Any, into: dict[str, Any]) -> None:
        if message.HasField(field.name):
            into.update(plan.fields(getattr(message, field.name)))

    return flatten

"""What a client put into a message, as the body or the query of the same request over HTTP would say it.

Policies judge parameters by it and audit entries show it: for both it must not matter over which wire a request came.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.bodies import parameters_of, parse_body, parse_value
from strongroom_gateway.contract.fields import SECONDS, TIMESTAMP, Field, scalar_writer
from strongroom_runtime.durations import parse_seconds
from strongroom_runtime.errors import invalid
from strongroom_runtime.timestamps import timestamp_rfc3339

# (value of a field): returns it as JSON has it.
Reader = Callable[[Any], Any]


class GivenPlan:
    """How what is set in messages of a type is read.

    Args:
        descriptor: of the type.
        as_query: over HTTP it stands in a query, in which everything is text.
    """

    def __init__(self, descriptor: Descriptor, *, as_query: bool = False) -> None:
        self._readers: dict[str, Reader | None] = {}  # None: it is in JSON what it is here
        self._inline: dict[str, Reader] = {}  # of fields without a key of their own
        for field in map(Field.of, descriptor.fields):
            if field.descriptor.GetOptions().Extensions[options.mount_path]:
                continue
            if field.format == options.FORMAT_INLINE:
                self._inline[field.name] = _members if _is_scalar(field) else _reader(field) or dict
            elif as_query:
                self._readers[field.name] = partial(_query_text, _reader(field))
            else:
                self._readers[field.name] = _reader(field)

    def fields(self, message: Message, without: Collection[str] = ()) -> dict[str, Any]:
        """Returns the fields that are set.

        Args:
            message: of the type.
            without: fields that stand in the path.

        Raises:
            ServiceError: INVALID or TOO_LARGE for JSON in a field that is malformed, or beyond the bounds of bodies;
                INVALID for a span beyond those that JSON may have.
        """
        given: dict[str, Any] = {}
        for descriptor, value in message.ListFields():
            name = descriptor.name
            if name in without:
                continue
            if name in self._readers:
                read = self._readers[name]
                given[name] = value if read is None else read(value)
            elif name in self._inline:
                given.update(self._inline[name](value))
        return given


def _is_scalar(field: Field) -> bool:
    return field.descriptor.message_type is None


def _reader(field: Field) -> Reader | None:
    """Returns what reads the value of a field."""
    if field.is_map:
        read = _reader(field.map_value)
        if read is None:
            return dict
        return lambda values: {key: read(each) for key, each in values.items()}
    if field.is_list_message:
        return lambda message: list(message.values)
    single = _single(field)
    if not field.is_repeated:
        return single
    return list if single is None else lambda values: list(map(single, values))


def _single(field: Field) -> Reader | None:
    """Returns what reads one value of a field, which may be a list."""
    message = field.descriptor.message_type
    if message is not None:
        return timestamp_rfc3339 if message.full_name == TIMESTAMP else GivenPlan(message).fields
    if field.format == options.FORMAT_JSON and field.descriptor.type == FieldDescriptor.TYPE_BYTES:
        return partial(parse_value, name=field.name)
    write = scalar_writer(field)
    if field.format in SECONDS:
        return partial(_span, field, write or int)
    return write


def _span(field: Field, write: Reader, seconds: int) -> Any:
    """Returns a span as JSON has it, within the bounds of those that are read from JSON."""
    if seconds < 0 and field.format == options.FORMAT_DURATION_OR_OFF:
        return write(seconds)
    try:
        return write(parse_seconds(seconds))
    except ValueError as error:
        raise invalid(f"{field.name}: {error}") from None


def _members(document: bytes) -> dict[str, Any]:
    return parameters_of(parse_body(document))


def _query_text(read: Reader | None, value: Any) -> str:
    value = value if read is None else read(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

"""Request messages from JSON bodies, query parameters and path captures."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.fields import Field, read_list, read_map, scalar_reader
from strongroom_gateway.contract.items import ItemsReader, items_reader
from strongroom_runtime.errors import ServiceError, invalid

_value = msgspec.json.decode

# (message, JSON value): puts the value into the message.
Setter = Callable[[Any, Any], None]
# What a field wants of the body: its raw JSON instead of its value.
_WANTS_RAW = (options.FORMAT_JSON,)


class RequestPlan:
    """How a message type is filled.

    Args:
        any_case: keys of the body may be in capitals, as `Key` of sys/unseal, which Go clients of old send.
        from_path: fields that only captures of the path give.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        *,
        any_case: bool = False,
        from_path: Collection[str] = (),
    ) -> None:
        self.descriptor = descriptor
        self._any_case = any_case
        self._new = GetMessageClass(descriptor)
        self._setters: dict[str, Setter] = {}
        self._raw: dict[str, Setter] = {}
        self._items: dict[str, ItemsReader] = {}
        self._batches: list[str] = []
        self._of_items: set[str] = set()  # what single items have, as far as it is base64
        # Of fields with several names: all of them, the newest first.
        self._names: dict[str, tuple[str, ...]] = {}
        self._zeros: dict[str, Setter] = {}  # of fields for which null says something
        self._body: Setter | None = None
        self.fields: list[Field] = []
        self.malformed = ""
        self.from_path = frozenset(from_path)
        self._add(descriptor, _itself)
        for key in from_path:
            self._setters.pop(key, None)

    @property
    def keys(self) -> frozenset[str]:
        """The keys that the body may have."""
        return frozenset(self._setters) | frozenset(self._raw)

    @property
    def takes_any(self) -> bool:
        """Whether the body as a whole is one field, so that every key is known."""
        return self._body is not None

    def decode(
        self,
        body: bytes,
        members: Mapping[str, msgspec.Raw],
        query: Mapping[str, str],
        captures: Mapping[str, str],
    ) -> tuple[Message, list[str]]:
        """Returns the message, and the keys of body and query that nothing wanted.

        Args:
            body: as it came.
            members: what `bodies.parse_body` made of it.
            query: parameters, which count where there is no body.
            captures: fields that the path gives; they win.

        Raises:
            ServiceError: INVALID; it names the field.
        """
        unknown: list[str] = []
        if self._body is not None and body:
            message = self._new()
            self._body(message, body)
        else:
            items = {} if self._items.keys().isdisjoint(members) else self._read_items(members)
            message = self._new(**items) if items else self._new()
            self._fill(message, members, items, captures, unknown)
        for key, text in query.items():
            names = self._names.get(key, (key,))
            in_body = any(name in members for name in names)
            newer = any(name in query for name in names[: names.index(key)])
            if key in self._setters:
                if not (in_body or newer):
                    self._setters[key](message, text)
            elif not (key in members or key in captures):
                unknown.append(key)
        for key, text in captures.items():
            setattr(message, key, text)
        return message, unknown

    def _read_items(self, members: Mapping[str, msgspec.Raw]) -> dict[str, list[dict[str, Any]]]:
        """Returns the lists of messages that are just as the contract says."""
        read = {name: self._items[name](members[name]) for name in self._items if name in members}
        return {name: items for name, items in read.items() if items is not None}

    def _has_items(self, members: Mapping[str, msgspec.Raw]) -> bool:
        """Returns whether there is a batch, beside which the fields of a single item mean nothing."""
        return any(bytes(members.get(name, b"null")) != b"null" for name in self._batches)

    def _fill(
        self,
        message: Message,
        members: Mapping[str, msgspec.Raw],
        done: Collection[str],
        captures: Collection[str],
        unknown: list[str],
    ) -> None:
        for given, raw in members.items():
            if given in done:
                continue
            key = given.lower() if self._any_case else given
            names = self._names.get(key)
            if names is not None and _gives(members, names[: names.index(key)]):
                continue
            setter = self._setters.get(key)
            if setter is not None:
                try:
                    value = _value(raw)
                except (msgspec.DecodeError, RecursionError):
                    raise invalid("failed to parse JSON input: the body is malformed") from None
                if value is not None:
                    try:
                        setter(message, value)
                    except ServiceError:
                        if not (
                            key in self._of_items and _is_plain(value) and self._has_items(members)
                        ):
                            raise
                elif key in self._zeros:
                    self._zeros[key](message, 0)
            elif key in self._raw:
                self._raw[key](message, bytes(raw))
            elif given not in captures and bytes(raw) != b"null":
                unknown.append(given)  # null says nothing: some clients send all that they know

    def _add(self, descriptor: Descriptor, owner: Callable[[Any], Any]) -> None:
        for field_descriptor in descriptor.fields:
            if field_descriptor.GetOptions().Extensions[options.mount_path]:
                continue
            field = Field.of(field_descriptor)
            inline = field.format == options.FORMAT_INLINE
            if inline and field.descriptor.message_type is not None and not field.is_map:
                inner = field.descriptor.message_type
                self._add(inner, _inner(owner, field.name))
                continue
            if field.format == options.FORMAT_MALFORMED:
                self.malformed = field.name
                continue
            self.fields.append(field)
            reader = _items_of(field) if owner is _itself else None
            if reader is not None:
                self._items[field.name] = reader
            if field.is_repeated and _malformed_of(field.descriptor.message_type):
                self._batches.append(field.name)
                self._of_items |= {
                    each.name
                    for each in field.message.fields
                    if each.type == FieldDescriptor.TYPE_BYTES
                }
            if inline and field.descriptor.message_type is None:
                self._body = _set_bytes(owner, field.name)
                continue
            into = self._raw if field.format in _WANTS_RAW else self._setters
            setter = _set_bytes(owner, field.name) if into is self._raw else _setter(owner, field)
            if field_descriptor.GetOptions().Extensions[options.null_is_zero]:
                self._zeros[field.name] = setter
            names = (field.name, *field.aliases)
            for key in names:
                into[key] = setter
                if field.aliases:
                    self._names[key] = names


def _items_of(field: Field) -> ItemsReader | None:
    """Returns what reads a list of messages in one step, where that can be."""
    whole = field.is_repeated and not field.format and not field.aliases
    return items_reader(field.message) if whole and field.descriptor.message_type else None


def _malformed_of(message: Descriptor | None) -> str:
    """Returns the field in which a message of batches says that it was malformed; empty for other messages."""
    fields = [Field.of(each) for each in message.fields] if message is not None else []
    return next((field.name for field in fields if field.format == options.FORMAT_MALFORMED), "")


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _gives(members: Mapping[str, msgspec.Raw], names: tuple[str, ...]) -> bool:
    """Returns whether a body says something under one of some names: null says nothing."""
    return any(name in members and bytes(members[name]) != b"null" for name in names)


def _itself(message: Any) -> Any:
    return message


def _inner(owner: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    return lambda message: getattr(owner(message), name)


def _set_bytes(owner: Callable[[Any], Any], name: str) -> Setter:
    return lambda message, raw: setattr(owner(message), name, raw)


def _setter(owner: Callable[[Any], Any], field: Field) -> Setter:
    name = field.name
    if field.is_map:
        read = _map_value(field)

        def set_map(message: Any, value: Any) -> None:
            getattr(owner(message), name).update(read_map(value, read, name))

        return set_map
    if field.is_list_message:
        inner = Field.of(field.message.fields[0])
        read_one = scalar_reader(inner)

        whole = field.format == options.FORMAT_WHOLE_TEXTS

        def set_list(message: Any, value: Any) -> None:
            value = [value] if whole and isinstance(value, str) else value
            target = getattr(owner(message), name)
            target.SetInParent()
            target.values.extend(read_list(value, _named(read_one, name), name))

        return set_list
    if field.descriptor.message_type is not None:
        return _message_setter(owner, field)
    read = scalar_reader(field)
    if field.is_repeated:

        def extend(message: Any, value: Any) -> None:
            getattr(owner(message), name).extend(read_list(value, read, name))

        return extend
    if field.format == options.FORMAT_SYSTEM_SECONDS:

        def set_span(message: Any, value: Any) -> None:
            if value != "":
                setattr(owner(message), name, 0 if value == "system" else read(value))

        return set_span
    if owner is _itself:
        return lambda message, value: setattr(message, name, read(value))
    return lambda message, value: setattr(owner(message), name, read(value))


def _named(read: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    """Returns a reader whose errors name the list instead of its `values`."""

    def named(value: Any) -> Any:
        try:
            return read(value)
        except ServiceError:
            raise invalid(f"{name}: takes a list of texts") from None

    return named


def _map_value(field: Field) -> Callable[[Any], Any]:
    read = scalar_reader(field.map_value)

    def named(each: Any) -> Any:
        try:
            return read(each)
        except ServiceError:
            raise invalid(f"{field.name}: takes an object of plain values") from None

    return named


def _message_setter(owner: Callable[[Any], Any], field: Field) -> Setter:
    plan = RequestPlan(field.message)
    setters = plan._setters

    def fill(target: Any, value: Any) -> None:
        if not isinstance(value, dict):
            raise invalid(f"{field.name}: takes an object")
        for key, each in value.items():
            setter = setters.get(key)
            if setter is not None and each is not None:
                setter(target, each)
            elif each is None and key in plan._zeros:
                plan._zeros[key](target, 0)
            elif key in plan._raw:
                plan._raw[key](target, msgspec.json.encode(each))

    if field.is_repeated:

        def extend(message: Any, value: Any) -> None:
            if not isinstance(value, list):
                raise invalid(f"{field.name}: takes a list of objects")
            if not value and plan.malformed:
                raise invalid("missing batch input to process")
            add = getattr(owner(message), field.name).add
            for each in value:
                target = add()
                try:
                    fill(target, each)
                except ServiceError as error:
                    if not plan.malformed:
                        raise
                    _fill_rest(target, each, setters)
                    setattr(target, plan.malformed, error.message)

        return extend

    def set_message(message: Any, value: Any) -> None:
        target = getattr(owner(message), field.name)
        target.SetInParent()
        fill(target, value)

    return set_message


def _fill_rest(target: Any, value: Any, setters: Mapping[str, Setter]) -> None:
    """Puts what can be read of a malformed object into a message: its result names what it refers to."""
    for key, each in value.items() if isinstance(value, dict) else ():
        if key in setters and each is not None:
            with contextlib.suppress(ServiceError):
                setters[key](target, each)

"""JSON Schemas of what requests and answers hold over HTTP, as OpenAPI 3.0 has them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.comments import comment
from strongroom_gateway.contract.decode import RequestPlan
from strongroom_gateway.contract.fields import SECONDS, TIMESTAMP, Field
from strongroom_gateway.contract.routes import MethodSpec

Schema = dict[str, Any]

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_UINT64: {"type": "integer"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
}
# Formats of seconds that answers give as text.
_SECONDS_AS_TEXT = (options.FORMAT_DURATION_TEXT, options.FORMAT_DURATION_OR_OFF)
_ANY_OBJECT: Schema = {"type": "object", "additionalProperties": True}
_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_TIME: Schema = {"type": "string", "format": "date-time"}
_ENVELOPE: dict[str, Schema] = {
    "request_id": {"type": "string"},
    "lease_id": {"type": "string"},
    "renewable": {"type": "boolean"},
    "lease_duration": {"type": "integer", "format": "int64", "description": "Seconds."},
    "data": {"type": "object", "nullable": True},
    "wrap_info": {"type": "object", "nullable": True},
    "warnings": {"type": "array", "items": {"type": "string"}, "nullable": True},
    "auth": {"type": "object", "nullable": True},
    "mount_type": {"type": "string"},
}
_ENVELOPE_PARTS: dict[int, str] = {
    options.ENVELOPE_AUTH: "auth",
    options.ENVELOPE_WRAP_INFO: "wrap_info",
    options.ENVELOPE_LEASE_ID: "lease_id",
}


class Schemas:
    """The schemas that the operations of a document refer to.

    Attributes:
        components: by name, that of errors among them.
    """

    def __init__(self) -> None:
        # Errors that tell what became of the items of a batch, or warn, come in an envelope.
        errors = {"type": "object", "properties": {"errors": _TEXTS, **_ENVELOPE}}
        self.components: dict[str, Schema] = {"Errors": errors}

    def warnings(self) -> Schema:
        """Returns the schema of an answer that says nothing but warnings."""
        self.components["Warnings"] = {"type": "object", "properties": _ENVELOPE}
        return _reference("Warnings")

    def request(self, spec: MethodSpec) -> Schema | None:
        """Returns the schema of a method's body; None where it takes none."""
        plan = spec.request_plan
        if plan.takes_any:
            return dict(_ANY_OBJECT)
        fields = [field for field in plan.fields if field.name not in plan.from_path]
        if not fields:
            return None
        return self._add(spec.descriptor.input_type, "", lambda: self._given(fields))

    def response(self, spec: MethodSpec) -> Schema | None:
        """Returns the schema of the body that a method answers with; None where there is none."""
        fields = [Field.of(each) for each in spec.descriptor.output_type.fields]
        data = [field for field in fields if not field.envelope]
        parts = [field for field in fields if field.envelope in _ENVELOPE_PARTS]
        if not data and not parts:
            return None
        bare = spec.body == options.BODY_BARE
        return self._add(
            spec.descriptor.output_type,
            "",
            lambda: self._answered(data) if bare else self._envelope(spec, data, parts),
        )

    def _envelope(self, spec: MethodSpec, data: list[Field], parts: list[Field]) -> Schema:
        """Returns the schema of an envelope, with what fields of the response are outside of `data`."""
        properties = dict(_ENVELOPE)
        for field in parts:
            if field.descriptor.message_type is not None:
                part = self._nested(field.message, given=False)
                properties[_ENVELOPE_PARTS[field.envelope]] = part
            if field.envelope == options.ENVELOPE_AUTH:
                self._add_requirement(field.message)
        if not data:
            return {"type": "object", "properties": properties}
        inner = self._add(spec.descriptor.output_type, "Data", lambda: self._answered(data))
        properties["data"] = _or_null(inner)
        top = self._answered(data) if spec.body == options.BODY_TOP_LEVEL else {}
        return {**top, "type": "object", "properties": {**top.get("properties", {}), **properties}}

    def _add(self, message: Descriptor, suffix: str, make: Callable[[], Schema]) -> Schema:
        """Returns a reference to the schema of a message, which is made once."""
        name = _name(message) + suffix
        if name not in self.components:
            self.components[name] = {}  # messages may hold themselves
            self.components[name] = make()
        return _reference(name)

    def _nested(self, message: Descriptor, *, given: bool) -> Schema:
        if given:
            fields = RequestPlan(message).fields
            return self._add(message, "Input", lambda: self._given(fields))
        return self._add(message, "", lambda: self._answered(map(Field.of, message.fields)))

    def _add_requirement(self, message: Descriptor) -> None:
        """Adds what the envelope adds to the message of a login."""
        properties = self.components[_name(message)]["properties"]
        properties["mfa_requirement"] = {"type": "object", "nullable": True}

    def given(self, field: Field) -> Schema:
        """Returns the schema of a field as requests give it."""
        if field.is_map:
            return {"type": "object", "additionalProperties": self._given_value(field.map_value)}
        if field.is_list_message:
            return dict(_TEXTS)
        return _repeated(field, self._given_value(field))

    def _given(self, fields: Iterable[Field]) -> Schema:
        properties = {field.name: _described(field, self.given(field)) for field in fields}
        return {"type": "object", "properties": properties}

    def _given_value(self, field: Field) -> Schema:
        if field.format == options.FORMAT_JSON:
            return dict(_ANY_OBJECT)
        if field.format in SECONDS:
            return {"type": "string", "format": "duration"}
        if field.descriptor.message_type is None:
            return _scalar(field)
        if field.message.full_name == TIMESTAMP:
            return dict(_TIME)
        return self._nested(field.message, given=True)

    def _answered(self, fields: Iterable[Field]) -> Schema:
        """Returns the schema of an object with some fields, or of what stands for all of it."""
        schema: Schema = {"type": "object", "properties": {}}
        for field in _flattened(fields):
            if field.format != options.FORMAT_INLINE:
                schema["properties"][field.name] = _described(field, self._answered_field(field))
            elif field.is_map:
                schema["additionalProperties"] = self._answered_value(field.map_value)
            else:
                return {**_ANY_OBJECT, "description": comment(field.descriptor.full_name)}
        return schema

    def _answered_field(self, field: Field) -> Schema:
        if field.is_map:
            values = self._answered_value(field.map_value)
            return {"type": "object", "nullable": True, "additionalProperties": values}
        listed = field.is_list_message
        schema = dict(_TEXTS) if listed else _repeated(field, self._answered_value(field))
        return _or_null(schema) if field.format == options.FORMAT_NULL_WHEN_UNSET else schema

    def _answered_value(self, field: Field) -> Schema:
        if field.format == options.FORMAT_JSON:
            return {**_ANY_OBJECT, "nullable": True}
        if field.descriptor.message_type is None:
            return {"type": "string"} if field.format in _SECONDS_AS_TEXT else _scalar(field)
        if field.message.full_name == TIMESTAMP:
            empty = field.format == options.FORMAT_EMPTY_WHEN_UNSET
            return {"type": "string"} if empty else dict(_TIME)
        return self._nested(field.message, given=False)


def _flattened(fields: Iterable[Field]) -> Iterator[Field]:
    """Yields fields as JSON has them: those of messages that stand for the whole body, and none for the envelope."""
    for field in fields:
        message = field.descriptor.message_type
        if field.envelope:
            continue
        if field.format == options.FORMAT_INLINE and message is not None and not field.is_map:
            yield from _flattened(map(Field.of, message.fields))
        else:
            yield field


def _scalar(field: Field) -> Schema:
    return dict(_SCALARS.get(field.descriptor.type, {"type": "string"}))


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _repeated(field: Field, one: Schema) -> Schema:
    return {"type": "array", "items": one} if field.is_repeated else one


def _or_null(schema: Schema) -> Schema:
    # As generators understand it; to the letter, what is referred to would have to be nullable as well.
    return {"nullable": True, **({"allOf": [schema]} if "$ref" in schema else schema)}


def _described(field: Field, schema: Schema) -> Schema:
    text = comment(field.descriptor.full_name)
    if not text:
        return schema
    return {**({"allOf": [schema]} if "$ref" in schema else schema), "description": text}


def _name(message: Descriptor) -> str:
    """Returns the name of a message with its package's before it: several have a RandomRequest."""
    _, area, _, *path = message.full_name.split(".")
    return area.title() + "".join(path)

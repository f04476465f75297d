"""Help on paths, from what the contracts say of their methods and fields (Vault documentation, "Path help")."""

import functools
import importlib.resources

import msgspec
from google.protobuf.descriptor import FieldDescriptor

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.fields import Field
from strongroom_gateway.contract.routes import MountKind, RouteTable

_VERBS: dict[int, str] = {
    options.OPERATION_READ: "GET",
    options.OPERATION_LIST: "LIST",
    options.OPERATION_SCAN: "SCAN",
    options.OPERATION_UPDATE: "POST",
    options.OPERATION_CREATE_OR_UPDATE: "POST",
    options.OPERATION_DELETE: "DELETE",
    options.OPERATION_PATCH: "PATCH",
}
_KINDS: dict[int, str] = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int",
    FieldDescriptor.TYPE_INT64: "int",
    FieldDescriptor.TYPE_DOUBLE: "float",
    FieldDescriptor.TYPE_BYTES: "object",
}


@functools.cache
def _comments() -> dict[str, str]:
    file = importlib.resources.files("strongroom").joinpath("comments.json")
    return msgspec.json.decode(file.read_bytes(), type=dict[str, str])


def comment(full_name: str) -> str:
    """Returns what the contract says of a service, method, message or field; empty where it is silent."""
    return _comments().get(full_name, "")


def path_help(routes: RouteTable, mount: MountKind | None, path: str) -> str:
    """Returns the help on a path below a mount, or an absolute one; empty where nothing is there."""
    parts = []
    for spec in routes.at(mount, path):
        lines = [f"## {_VERBS[spec.operation]} {path}", "", comment(spec.descriptor.full_name), ""]
        fields = [_field(field) for field in spec.request_plan.fields]
        if fields:
            lines += ["Parameters:", "", *fields, ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def mount_help(routes: RouteTable, mount: MountKind) -> str:
    """Returns the help on all paths of a kind of mount."""
    specs = [spec for spec in routes.methods.values() if spec.mount == mount]
    services = dict.fromkeys(spec.descriptor.containing_service.full_name for spec in specs)
    lines = ["## DESCRIPTION", "", *(comment(name) for name in services), "", "## PATHS", ""]
    lines += ["What you may do with them depends on your policies.", ""]
    for spec in specs:
        for pattern in spec.patterns if not spec.streams else ():
            lines.append(f"    {_VERBS[spec.operation]:6} {pattern.replace('=**', '')}")
            lines.append(f"        {_first(comment(spec.descriptor.full_name))}")
    return "\n".join(lines) + "\n"


def _first(text: str) -> str:
    """Returns the first sentence of a comment."""
    return text.partition(". ")[0].rstrip(".") + "." if text else ""


def _field(field: Field) -> str:
    kind = _KINDS.get(field.descriptor.type, "string")
    if field.format in (options.FORMAT_SECONDS, options.FORMAT_DURATION_TEXT):
        kind = "duration"
    elif field.is_map or field.descriptor.message_type is not None:
        kind = "object"
    elif field.is_repeated:
        kind = "list"
    return f"    {field.name} ({kind})\n        {comment(field.descriptor.full_name)}"

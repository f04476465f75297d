"""Help on paths, from what the contracts say of their methods and fields (Vault documentation, "Path help")."""

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.comments import comment
from strongroom_gateway.contract.fields import Field
from strongroom_gateway.contract.routes import MountKind, RouteTable
from strongroom_gateway.contract.schemas import Schemas
from strongroom_runtime.handlers import Shape

_VERBS: dict[int, str] = {
    options.OPERATION_READ: "GET",
    options.OPERATION_LIST: "LIST",
    options.OPERATION_SCAN: "SCAN",
    options.OPERATION_UPDATE: "POST",
    options.OPERATION_CREATE_OR_UPDATE: "POST",
    options.OPERATION_DELETE: "DELETE",
    options.OPERATION_PATCH: "PATCH",
}
_KINDS = {"boolean": "bool", "integer": "int", "number": "float", "array": "list"}


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


def mount_help(routes: RouteTable, mount: MountKind, path: str) -> str:
    """Returns the help on all paths of a mount, or of those that are always there by the mount's path."""
    specs = [
        spec
        for spec in routes.methods.values()
        if spec.mount == mount or any(p.startswith(f"/{path}") for p in spec.patterns)
    ]
    services = dict.fromkeys(spec.descriptor.containing_service.full_name for spec in specs)
    lines = ["## DESCRIPTION", "", *(comment(name) for name in services), "", "## PATHS", ""]
    lines += ["What you may do with them depends on your policies.", ""]
    for spec in specs:
        for pattern in spec.patterns if spec.shape is Shape.UNARY else ():
            lines.append(f"    {_VERBS[spec.operation]:6} {pattern.replace('=**', '')}")
            lines.append(f"        {_first(comment(spec.descriptor.full_name))}")
    return "\n".join(lines) + "\n"


def _first(text: str) -> str:
    """Returns the first sentence of a comment."""
    return text.partition(". ")[0].rstrip(".") + "." if text else ""


def _field(field: Field) -> str:
    described = Schemas().given(field)
    kind = described.get("type", "object")
    if described.get("format") == "duration":
        kind = "duration"
    return f"    {field.name} ({_KINDS.get(kind, kind)})\n        {comment(field.descriptor.full_name)}"

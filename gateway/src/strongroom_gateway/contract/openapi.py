"""The description of the HTTP API, made from the contracts (OpenAPI 3.0)."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.comments import comment
from strongroom_gateway.contract.fields import SECONDS, Field
from strongroom_gateway.contract.routes import MethodSpec, MountKind, RouteTable
from strongroom_runtime.handlers import Shape
from strongroom_runtime.version import version

_VERBS: dict[int, str] = {
    options.OPERATION_READ: "get",
    options.OPERATION_LIST: "get",
    options.OPERATION_SCAN: "get",
    options.OPERATION_UPDATE: "post",
    options.OPERATION_CREATE_OR_UPDATE: "post",
    options.OPERATION_DELETE: "delete",
    options.OPERATION_PATCH: "patch",
}


def describe(routes: RouteTable, mounts: Sequence[tuple[str, MountKind]] | None = None) -> bytes:
    """Returns the OpenAPI document as JSON.

    Args:
        routes: all methods.
        mounts: path and kind of the mounts to describe; None for all kinds, with the mount's path as a parameter that
            is named after its type.
    """
    paths: dict[str, Any] = {}
    for spec in routes.methods.values():
        for path, names in _paths(spec, mounts) if spec.shape is Shape.UNARY else ():
            item = paths.setdefault(path, {})
            if spec.sudo:
                item["x-vault-sudo"] = True
            if spec.unauthenticated:
                item["x-vault-unauthenticated"] = True
            if spec.operation == options.OPERATION_CREATE_OR_UPDATE:
                item["x-vault-createSupported"] = True
            verb = _VERBS[spec.operation]
            if spec.lists and verb in item:
                continue  # the read has the verb; clients list with ?list=true
            item[verb] = _operation(spec, names)
    document = {
        "openapi": "3.0.2",
        "info": {
            "title": "Strongroom",
            "description": "HTTP API, as of Vault",
            "version": version(),
            "license": {"name": "MPL-2.0"},
        },
        "paths": paths,
    }
    return msgspec.json.encode(document)


def _paths(
    spec: MethodSpec, mounts: Sequence[tuple[str, MountKind]] | None
) -> Iterator[tuple[str, list[str]]]:
    """Yields the paths of a method, with the names of what they capture."""
    for pattern in spec.patterns:
        if spec.mount is None:
            yield _path(spec, pattern, [], [])
        elif mounts is None:
            service = spec.descriptor.containing_service.GetOptions()
            prefix = "/auth" if service.Extensions[options.mount].auth else ""
            name = f"{spec.mount[0]}_mount_path"
            yield _path(spec, pattern, [f"{prefix}/{{{name}}}"], [name])
        else:
            for path, kind in mounts:
                if kind == spec.mount:
                    yield _path(spec, pattern, [f"/{path.rstrip('/')}"], [])


def _path(
    spec: MethodSpec, pattern: str, segments: list[str], names: list[str]
) -> tuple[str, list[str]]:
    for segment in pattern.removeprefix("/").split("/") if pattern else []:
        if segment.startswith("{"):
            name = segment[1:-1].partition("=")[0]
            names.append(name)
            segment = f"{{{name}}}"
        segments.append(segment)
    path = "/".join(segments)
    path = path if path.startswith("/") else f"/{path}"
    return (path + "/" if spec.lists else path), names


def _operation(spec: MethodSpec, names: list[str]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": comment(spec.descriptor.full_name),
        "operationId": spec.name.rpartition("/")[2],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ],
        "responses": {str(spec.success_status or 200): {"description": "OK"}},
    }
    plan = spec.request_plan
    fields = [f for f in plan.fields if f.name not in names and f.name not in plan.from_path]
    if _VERBS[spec.operation] in ("post", "patch") and fields:
        schema = {"type": "object", "properties": {f.name: _described(f) for f in fields}}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    if spec.lists:
        operation["parameters"].append(
            {"name": "list", "in": "query", "schema": {"type": "string", "enum": ["true"]}}
        )
    return operation


def _described(field: Field) -> dict[str, Any]:
    return {**schema(field), "description": comment(field.descriptor.full_name)}


def schema(field: Field) -> dict[str, Any]:
    """Returns the JSON Schema of a field."""
    if field.is_map:
        return {"type": "object"}
    if field.is_repeated or field.is_list_message:
        return {"type": "array", "items": {"type": "string"}}
    if field.format in (options.FORMAT_JSON, options.FORMAT_INLINE):
        return {"type": "object"}
    if field.format in SECONDS:
        return {"type": "string", "format": "duration"}
    kinds = {
        FieldDescriptor.TYPE_BOOL: "boolean",
        FieldDescriptor.TYPE_INT32: "integer",
        FieldDescriptor.TYPE_INT64: "integer",
        FieldDescriptor.TYPE_DOUBLE: "number",
        FieldDescriptor.TYPE_MESSAGE: "object",
    }
    return {"type": kinds.get(field.descriptor.type, "string")}

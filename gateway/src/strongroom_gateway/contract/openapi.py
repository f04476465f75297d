"""The description of the HTTP API, made from the contracts (OpenAPI 3.0.3)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.comments import comment
from strongroom_gateway.contract.routes import WITH_BODY, MethodSpec, MountKind, RouteTable
from strongroom_gateway.contract.schemas import Schemas
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
_CUBBYHOLE: MountKind = ("cubbyhole", "")  # has one mount, which cannot be moved
_DESCRIPTION = (
    "The HTTP API of Vault, as Strongroom has it. Every answer may be wrapped: the header X-Vault-Wrap-TTL asks for "
    "it, and wrap_info says how to get at it. Durations may be numbers of seconds, too."
)
_COMMON: dict[str, Any] = {
    "responses": {
        "Error": {
            "description": "What is wrong, with a status of 400 and more.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Errors"}}},
        }
    },
    "securitySchemes": {
        "token": {"type": "apiKey", "in": "header", "name": "X-Vault-Token"},
        "bearer": {"type": "http", "scheme": "bearer"},
    },
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A path of a method.

    Args:
        path: with names in braces.
        names: what it captures, in order; those in `several` may hold slashes.
        prefix: of what is called by one name in several mounts, or services.
        variant: tells this path from the first one of the method; empty for that one.
    """

    path: str
    names: tuple[str, ...]
    several: tuple[str, ...]
    prefix: str
    variant: str


def describe(routes: RouteTable, mounts: Sequence[tuple[str, MountKind]] | None = None) -> bytes:
    """Returns the OpenAPI document as JSON.

    Args:
        routes: all methods.
        mounts: path and kind of the mounts to describe; None for all kinds, with the mount's path as a parameter that
            is named after its type.
    """
    schemas = Schemas()
    paths: dict[str, Any] = {}
    for spec in routes.methods.values():
        for place in _places(spec, mounts) if _over_http(spec) else ():
            item = paths.setdefault(place.path, {})
            if spec.sudo:
                item["x-vault-sudo"] = True
            if spec.unauthenticated:
                item["x-vault-unauthenticated"] = True
            if spec.operation == options.OPERATION_CREATE_OR_UPDATE:
                item["x-vault-createSupported"] = True
            verb = _VERBS[spec.operation]
            if spec.lists and verb in item:  # lists and recursive lists share path and verb
                item[verb]["parameters"][-1]["required"] = False
                item[verb]["parameters"].append(_list_parameter(spec, required=False))
                continue
            item[verb] = _operation(spec, place, schemas)
    document = {
        "openapi": "3.0.3",
        "info": {
            "title": "Strongroom",
            "description": _DESCRIPTION,
            "version": version(),
            "license": {"name": "MPL-2.0", "url": "https://www.mozilla.org/en-US/MPL/2.0"},
        },
        "servers": [{"url": "/v1"}],
        "security": [{"token": []}, {"bearer": []}],
        "tags": [{"name": name} for name in ("auth", "secrets", "system")],
        "paths": paths,
        "components": {"schemas": schemas.components, **_COMMON},
    }
    return msgspec.json.encode(document)


def _over_http(spec: MethodSpec) -> bool:
    return spec.shape is Shape.UNARY or spec.body == options.BODY_RAW


def _places(spec: MethodSpec, mounts: Sequence[tuple[str, MountKind]] | None) -> Iterator[_Place]:
    """Yields the paths of a method."""
    for number, pattern in enumerate(spec.patterns):
        variant = (pattern or "root") if number else ""
        if spec.mount is None:
            yield _place(spec, pattern, "", "", variant)
        elif mounts is not None:
            for path, kind in mounts:
                if kind == spec.mount:
                    yield _place(spec, pattern, f"/{path.rstrip('/')}", path, variant)
        elif spec.mount == _CUBBYHOLE:
            yield _place(spec, pattern, "/cubbyhole", "cubbyhole", variant)
        else:
            name = "_v".join(part for part in spec.mount if part)
            service = spec.descriptor.containing_service.GetOptions()
            below = "/auth" if service.Extensions[options.mount].auth else ""
            yield _place(spec, pattern, f"{below}/{{{name}_mount_path=**}}", name, variant)


def _place(spec: MethodSpec, pattern: str, root: str, prefix: str, variant: str) -> _Place:
    path = "/".join(part.strip("/") for part in (root, pattern) if part)
    captures = re.findall(r"\{(\w+)(=\*\*)?\}", path)
    path = f"/{path.replace('=**', '')}"
    return _Place(
        path + "/" if spec.lists else path,
        tuple(name for name, _ in captures),
        tuple(name for name, stars in captures if stars),
        prefix,
        variant,
    )


def _operation(spec: MethodSpec, place: _Place, schemas: Schemas) -> dict[str, Any]:
    text = comment(spec.descriptor.full_name)
    operation: dict[str, Any] = {
        "operationId": _operation_id(spec, place),
        "tags": [_tag(place.path, spec)],
        "summary": text.partition(". ")[0].rstrip("."),
        "description": text,
        "parameters": [*_path_parameters(spec, place), *_query_parameters(spec, place, schemas)],
        "responses": {
            **_success(spec, schemas),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if spec.sudo:
        operation["x-vault-sudo"] = True
    if spec.unauthenticated:
        operation["security"] = []
    body = schemas.request(spec) if spec.operation in WITH_BODY else None
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    if spec.lists:
        operation["parameters"].append(_list_parameter(spec, required=True))
    return operation


def _operation_id(spec: MethodSpec, place: _Place) -> str:
    """Returns a name that no other operation has: generators name functions after it."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", spec.descriptor.name)
    words = [place.prefix, name, "at " + place.variant if place.variant else ""]
    return "-".join(re.findall(r"[a-z0-9]+", " ".join(words).replace("=**", "").lower()))


def _tag(path: str, spec: MethodSpec) -> str:
    if path.startswith("/auth/"):
        return "auth"
    return "system" if spec.mount is None else "secrets"


def _path_parameters(spec: MethodSpec, place: _Place) -> Iterator[dict[str, Any]]:
    for name in place.names:
        field = spec.descriptor.input_type.fields_by_name.get(name)
        text = comment(field.full_name) if field else "Where the engine, or the method, is mounted."
        if name in place.several:
            text += " It may have slashes, which stay as they are."
        schema = {"type": "string"}
        yield {
            "name": name, "in": "path", "required": True, "description": text, "schema": schema,
        }  # fmt: skip


def _query_parameters(
    spec: MethodSpec, place: _Place, schemas: Schemas
) -> Iterator[dict[str, Any]]:
    """Yields what a query may say: of requests with a body it says nothing."""
    plan = spec.request_plan
    for field in plan.fields if spec.operation not in WITH_BODY else ():
        schema = schemas.given(field)
        if field.name in place.names or field.name in plan.from_path or "$ref" in schema:
            continue
        text = comment(field.descriptor.full_name)
        parameter = {"name": field.name, "in": "query", "description": text, "schema": schema}
        yield {**parameter, "explode": False} if schema["type"] == "array" else parameter


def _list_parameter(spec: MethodSpec, *, required: bool) -> dict[str, Any]:
    # It is named as the capability that it takes: list or scan.
    schema = {"type": "string", "enum": ["true"]}
    return {"name": spec.capability, "in": "query", "required": required, "schema": schema}


def _success(spec: MethodSpec, schemas: Schemas) -> dict[str, Any]:
    if spec.body == options.BODY_RAW:
        binary = {"type": "string", "format": "binary"}
        return {"200": {"description": "OK", "content": {"*/*": {"schema": binary}}}}
    schema = schemas.response(spec)
    if schema is not None:
        return {str(spec.success_status or 200): _answer("OK", schema)}
    warnings = {str(spec.success_status or 200): _answer("There are warnings.", schemas.warnings())}
    return warnings if spec.success_status else {"204": {"description": "Done."}, **warnings}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}

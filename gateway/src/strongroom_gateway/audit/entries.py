"""Audit entries in Vault's shape (Vault documentation, "Audit devices")."""

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from strongroom_gateway.audit.redact import Hasher
from strongroom_runtime.context import MountContext, TokenContext
from strongroom_runtime.timestamps import rfc3339

_encode = msgspec.json.Encoder().encode

# Known to be harmless wherever they stand in an `auth` object.
_AUTH_PLAIN = frozenset({"policies", "token_policies", "identity_policies", "token_type"})


@dataclass(slots=True)
class Subject:
    """What a request's entries are about."""

    request_id: str
    operation: str
    path: str
    mount: MountContext | None
    client_address: str
    trace_id: str
    token_text: str
    wrap_ttl: int | None
    parameters: dict[str, Any]
    token: TokenContext | None = None
    plain_request: frozenset[str] = frozenset()
    plain_response: frozenset[str] = frozenset()
    made: "dict[Device, Common]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """A device, as far as making entries goes."""

    path: str
    hasher: Hasher
    plain_accessors: bool

    def accessor(self, value: str) -> str:
        """Returns an accessor as it stands in this device's entries."""
        return value if self.plain_accessors else self.hasher.handle(value)


@dataclass(frozen=True, slots=True)
class Common:
    """What both entries of a request say, made once."""

    auth: msgspec.Raw
    request: msgspec.Raw


def request_entry(subject: Subject, device: Device, error: str) -> bytes:
    """Returns the entry of a request."""
    shared = _common(subject, device)
    entry = {
        "time": rfc3339(time.time()),
        "type": "request",
        "auth": shared.auth,
        "request": shared.request,
        "trace_id": subject.trace_id,
    }
    if error:
        entry["error"] = error
    return _encode(entry)


def response_entry(
    subject: Subject,
    device: Device,
    *,
    error: str,
    data: Any = None,
    auth: dict[str, Any] | None = None,
    wrap_info: dict[str, Any] | None = None,
    lease_id: str = "",
) -> bytes:
    """Returns the entry of an answer."""
    shared, hasher = _common(subject, device), device.hasher
    response: dict[str, Any] = {}
    if subject.mount is not None:
        response["mount_type"] = subject.mount.type
        response["mount_accessor"] = subject.mount.accessor
    if data is not None:
        response["data"] = hasher.value(data, subject.plain_response)
    if auth is not None:
        response["auth"] = _handles(auth, device, _AUTH_PLAIN)
    if wrap_info is not None:
        response["wrap_info"] = _handles(wrap_info, device, frozenset({"creation_path"}))
    if lease_id:
        response["secret"] = {"lease_id": lease_id}
    entry = {
        "time": rfc3339(time.time()),
        "type": "response",
        "auth": shared.auth,
        "request": shared.request,
        "response": response,
        "trace_id": subject.trace_id,
    }
    if error:
        entry["error"] = error
    return _encode(entry)


def _common(subject: Subject, device: Device) -> Common:
    """Returns what both entries of a request say; made once for each device."""
    shared = subject.made.get(device)
    if shared is None:
        shared = subject.made[device] = Common(
            msgspec.Raw(_encode(_auth(subject, device))),
            msgspec.Raw(_encode(_request(subject, device))),
        )
    return shared


def _auth(subject: Subject, device: Device) -> dict[str, Any]:
    token = subject.token
    if token is None:
        return {"token_type": "default"}
    return {
        "client_token": device.hasher.handle(subject.token_text),
        "accessor": device.accessor(token.accessor),
        "display_name": token.display_name,
        "policies": token.policies,
        "token_policies": token.policies,
        "entity_id": token.entity_id,
        "token_type": "service",
    }


def _request(subject: Subject, device: Device) -> dict[str, Any]:
    request: dict[str, Any] = {
        "id": subject.request_id,
        "operation": subject.operation,
        "namespace": {"id": "root"},
        "path": subject.path,
        "remote_address": subject.client_address,
    }
    mount = subject.mount
    if mount is not None:
        request["mount_point"] = mount.path
        request["mount_type"] = mount.type
        request["mount_accessor"] = mount.accessor
    if subject.token_text:
        request["client_token"] = device.hasher.handle(subject.token_text)
    if subject.token is not None:
        request["client_token_accessor"] = device.accessor(subject.token.accessor)
    if subject.parameters:
        request["data"] = device.hasher.value(subject.parameters, subject.plain_request)
    if subject.wrap_ttl:
        request["wrap_ttl"] = subject.wrap_ttl
    return request


def _handles(part: dict[str, Any], device: Device, plain: frozenset[str]) -> dict[str, Any]:
    """Returns an `auth` or `wrap_info` object with accessors as the device has them."""
    hashed: dict[str, Any] = device.hasher.value(part, plain)
    if device.plain_accessors:
        for key in ("accessor", "wrapped_accessor"):
            if part.get(key):
                hashed[key] = part[key]
    return hashed

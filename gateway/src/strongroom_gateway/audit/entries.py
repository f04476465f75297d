"""Audit entries in Vault's shape (Vault documentation, "Audit devices").

An entry is put together from pieces of JSON. What a token, a mount or a device says in every entry is made once.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from strongroom_gateway.audit.redact import Hasher
from strongroom_runtime.bounded import Bounded
from strongroom_runtime.context import MountContext, TokenContext
from strongroom_runtime.derived import Derived
from strongroom_runtime.timestamps import rfc3339

_encode = msgspec.json.Encoder().encode

_REQUEST = b'{"time":"%b","type":"request"%b}'
_RESPONSE = b'{"time":"%b","type":"response"%b,"response":{%b}}'
_NO_TOKEN = b'{"token_type":"default"}'
_TOKENS_BYTES = 24 << 20  # some 20,000 usual ones
_TOKEN_OBJECTS = 400  # bytes that the objects of one token take, whatever it says
# Known to be harmless wherever they stand in an `auth` object.
_AUTH_PLAIN = frozenset({"policies", "token_policies", "identity_policies", "token_type"})
_WRAP_PLAIN = frozenset({"creation_path"})
_READS = frozenset({"read", "list", "scan"})


class Subject(msgspec.Struct):
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
    headers: dict[str, tuple[str, bool]] = {}  # value, and whether it stands there as an HMAC
    token: TokenContext | None = None
    made: "dict[Device, bytes]" = {}  # what both entries say, as JSON


class Outcome(msgspec.Struct):
    """What came of a request. `fields` are what its `data` was made of, where that is known."""

    error: str = ""
    data: msgspec.Raw | Mapping[str, Any] | None = None
    fields: Mapping[str, Any] | None = None
    auth: dict[str, Any] | None = None
    wrap_info: dict[str, Any] | None = None
    lease_id: str = ""


class Common(msgspec.Struct, frozen=True):
    """What entries say of who asks, as JSON, made once."""

    auth: bytes
    request: bytes


class Device:
    """A device, as far as making entries goes.

    Args:
        path: its name.
        hasher: with its salt.
        plain_accessors: accessors stand in its entries as they are.
    """

    def __init__(self, path: str, hasher: Hasher, plain_accessors: bool) -> None:
        self.path = path
        self.hasher = hasher
        self.plain_accessors = plain_accessors
        self._tokens: Bounded[str, tuple[TokenContext, Common]] = Bounded(_TOKENS_BYTES)

    def accessor(self, value: str) -> str:
        """Returns an accessor as it stands in this device's entries."""
        return value if self.plain_accessors else self.hasher.text(value)

    def about(self, token: TokenContext | None, text: str) -> Common:
        """Returns what entries say of who asks: the `auth` object, and members of `request`.

        Args:
            token: who asks; None where that is not known.
            text: of the token, empty for none.
        """
        if token is None:
            hashed = _encode(self.hasher.text(text))
            return Common(_NO_TOKEN, b',"client_token":' + hashed if text else b"")
        known = self._tokens.get(token.id)  # which stands for the text, of which it is an HMAC
        if known is None or known[0] is not token:
            known = (token, self._about(token, text))
            size = 2 * len(known[1].auth) + len(known[1].request) + _TOKEN_OBJECTS
            self._tokens.keep(token.id, known, size)
        return known[1]

    def _about(self, token: TokenContext, text: str) -> Common:
        hashed, accessor = self.hasher.text(text), self.accessor(token.accessor)
        auth = {
            "client_token": hashed,
            "accessor": accessor,
            "display_name": token.display_name,
            "policies": token.policies,
            "token_policies": token.policies,
            "entity_id": token.entity_id,
            "token_type": "service",
        }
        request = {"client_token": hashed, "client_token_accessor": accessor}
        return Common(_encode(auth), b"," + _encode(request)[1:-1])


@dataclass(frozen=True, slots=True)
class _MountParts:
    """What entries say of a mount, as JSON members, and the keys that they show as they are."""

    request: bytes
    response: bytes
    plain_request: frozenset[str]
    plain_response: frozenset[str]


def request_entry(subject: Subject, device: Device, error: str) -> bytes:
    """Returns the entry of a request."""
    return _REQUEST % (_now(), _shared(subject, device, error))


def response_entry(subject: Subject, device: Device, outcome: Outcome) -> bytes:
    """Returns the entry of an answer."""
    shared = _shared(subject, device, outcome.error)
    return _RESPONSE % (_now(), shared, _response(subject, device, outcome))


def both_entries(subject: Subject, device: Device, outcome: Outcome) -> tuple[bytes, bytes]:
    """Returns the entries of a request and of its answer, which are written together."""
    now, shared = _now(), _shared(subject, device, outcome.error)
    answer = _response(subject, device, outcome)
    return _REQUEST % (now, shared), _RESPONSE % (now, shared, answer)


def _now() -> bytes:
    return rfc3339(time.time()).encode()


def _shared(subject: Subject, device: Device, error: str) -> bytes:
    """Returns the members that both entries have."""
    members = subject.made.get(device)
    if members is None:
        about = device.about(subject.token, subject.token_text)
        request = _request(subject, device, about.request)
        trace = _encode(subject.trace_id)
        members = b',"auth":%b,"request":{%b},"trace_id":%b' % (about.auth, request, trace)
        subject.made[device] = members
    return members + b',"error":' + _encode(error) if error else members


def _request(subject: Subject, device: Device, token: bytes) -> bytes:
    """Returns the members of a `request` object."""
    mount = _mounts.of(subject.mount) if subject.mount is not None else _NO_MOUNT
    members = (
        b'"id":%b,"operation":"%b","namespace":{"id":"root"},"path":%b,"remote_address":%b%b%b'
        % (
            _encode(subject.request_id),
            subject.operation.encode(),
            _encode(subject.path),
            _encode(subject.client_address),
            mount.request,
            token,
        )
    )
    if subject.parameters:
        members += b',"data":' + device.hasher.json(subject.parameters, mount.plain_request)
    if subject.headers:
        shown = {
            name: [device.hasher.text(value) if hmac else value]
            for name, (value, hmac) in subject.headers.items()
        }
        members += b',"headers":' + _encode(shown)
    if subject.wrap_ttl:
        members += b',"wrap_ttl":%d' % subject.wrap_ttl
    return members


def _response(subject: Subject, device: Device, outcome: Outcome) -> bytes:
    """Returns the members of a `response` object."""
    mount = _mounts.of(subject.mount) if subject.mount is not None else _NO_MOUNT
    parts = [mount.response] if mount.response else []
    if outcome.data is not None:
        # What is read is read again. What an operation made (a ciphertext, a token) does not come again, and would
        # only push out what does.
        hasher, data = device.hasher, outcome.data
        if subject.operation in _READS and isinstance(data, msgspec.Raw):
            hashed = hasher.document(data, mount.plain_response)
        else:
            hashed = hasher.json(outcome.fields or data, mount.plain_response)
        parts.append(b'"data":' + hashed)
    if outcome.auth is not None:
        parts.append(b'"auth":' + _handles(outcome.auth, device, _AUTH_PLAIN))
    if outcome.wrap_info is not None:
        parts.append(b'"wrap_info":' + _handles(outcome.wrap_info, device, _WRAP_PLAIN))
    if outcome.lease_id:
        parts.append(b'"secret":' + _encode({"lease_id": outcome.lease_id}))
    return b",".join(parts)


def _handles(part: dict[str, Any], device: Device, plain: frozenset[str]) -> bytes:
    """Returns an `auth` or `wrap_info` object with accessors as the device has them."""
    shown = ("accessor", "wrapped_accessor") if device.plain_accessors else ()
    return device.hasher.json(part, plain.union(shown))


def _mount_parts(mount: MountContext) -> _MountParts:
    who = {"mount_type": mount.type, "mount_accessor": mount.accessor}
    config = msgspec.json.decode(mount.config) if mount.config else {}
    return _MountParts(
        b"," + _encode({"mount_point": mount.path, **who})[1:-1],
        _encode(who)[1:-1],
        frozenset(config.get("audit_non_hmac_request_keys", ())),
        frozenset(config.get("audit_non_hmac_response_keys", ())),
    )


_NO_MOUNT = _MountParts(b"", b"", frozenset(), frozenset())
_mounts = Derived(_mount_parts)

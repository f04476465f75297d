"""The HTTP body of an answer (Vault documentation, "HTTP API")."""

from typing import Any

import msgspec

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.encode import Encoded
from strongroom_runtime.errors import Kind, ServiceError

STATUS = {
    Kind.INVALID: 400,
    Kind.FAILED_PRECONDITION: 400,
    Kind.DENIED: 403,
    Kind.NOT_FOUND: 404,
    Kind.UNSUPPORTED: 405,
    Kind.TOO_LARGE: 413,
    Kind.UNSUPPORTED_MEDIA: 415,
    Kind.EXHAUSTED: 429,
    Kind.CONFLICT: 500,
    Kind.UNAVAILABLE: 503,
    Kind.SEALED: 503,
    Kind.DEADLINE: 504,
    Kind.INTERNAL: 500,
}

_encode = msgspec.json.encode


def document(encoded: Encoded, body: int, request_id: str, mount_type: str) -> bytes:
    """Returns the body of an answer; empty where there is nothing to say.

    Args:
        encoded: the answer.
        body: how the contract wants it.
        request_id: names the request.
        mount_type: of the mount that was asked.
    """
    if body == options.BODY_BARE:
        return bytes(encoded.data) if encoded.data is not None else b""
    said = (encoded.data, encoded.auth, encoded.wrap_info)
    if all(part is None for part in said) and not (encoded.lease_id or encoded.warnings):
        return b""
    envelope: dict[str, Any] = {
        "request_id": request_id,
        "lease_id": encoded.lease_id,
        "renewable": encoded.renewable,
        "lease_duration": encoded.lease_duration,
        "data": encoded.data,
        "wrap_info": encoded.wrap_info,
        "warnings": encoded.warnings or None,
        "auth": {**encoded.auth, "mfa_requirement": None} if encoded.auth is not None else None,
        "mount_type": mount_type,
    }
    if body == options.BODY_TOP_LEVEL and encoded.data is not None:
        members = msgspec.json.decode(encoded.data, type=dict[str, msgspec.Raw])
        envelope = {**members, **envelope}
    return _encode(envelope)


def error_document(
    error: ServiceError, request_id: str = "", mount_type: str = "", *, by_policies: bool = True
) -> bytes:
    """Returns the body of an error.

    One that carries data or warnings is an envelope, as an answer is: the metadata of a deleted version is there.

    Args:
        error: what the client is to be told.
        request_id: names the request.
        mount_type: of the mount that was asked.
        by_policies: where it is a refusal, it may be one by policies.
    """
    message = error.message
    if error.kind is Kind.DENIED and message == "permission denied" and by_policies:
        # Clients look for this very text, by which Vault tells what policies refuse from tokens that are not valid.
        message = "1 error occurred:\n\t* permission denied\n\n"
    if not error.data and not error.warnings:
        return _encode({"errors": [message] if message else []})
    envelope: dict[str, Any] = {
        "request_id": request_id,
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": msgspec.Raw(error.data) if error.data else None,
        "wrap_info": None,
        "warnings": list(error.warnings) or None,
        "auth": None,
        "mount_type": mount_type,
    }
    return _encode({"errors": [message], **envelope} if message else envelope)

"""The errors a service reports to its caller, and their one mapping to gRPC codes.

A service raises `ServiceError` with a kind and a text; the server and the link turn the kind into a
canonical gRPC code, the gateway turns it into an HTTP status. Any other exception is a bug: it reaches
the caller as INTERNAL, without its text. Texts name the field that is wrong, never its value.
"""

from enum import Enum

import grpc


class Kind(Enum):
    """What went wrong. The value is the reason in `google.rpc.ErrorInfo`."""

    INVALID = "INVALID"  # a parameter is missing or wrong: 400
    FAILED_PRECONDITION = "FAILED_PRECONDITION"  # check-and-set mismatch and the like: 400
    DENIED = "DENIED"  # no such token, or no right: 403
    NOT_FOUND = "NOT_FOUND"  # 404
    UNSUPPORTED = "UNSUPPORTED"  # the path does not know the operation: 405
    TOO_LARGE = "TOO_LARGE"  # 413
    UNSUPPORTED_MEDIA = (
        "UNSUPPORTED_MEDIA"  # the body is of a type that the path does not take: 415
    )
    EXHAUSTED = "EXHAUSTED"  # a quota: 429
    CONFLICT = "CONFLICT"  # lost a race that was retried in vain: 500 for clients, safe to retry
    UNAVAILABLE = "UNAVAILABLE"  # a service, or the store, cannot be reached: 503
    SEALED = "SEALED"  # 503
    DEADLINE = "DEADLINE"  # 504
    INTERNAL = "INTERNAL"  # a bug, or data that does not open: 500


GRPC_CODES: dict[Kind, grpc.StatusCode] = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Kind.TOO_LARGE: grpc.StatusCode.OUT_OF_RANGE,
    Kind.UNSUPPORTED_MEDIA: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.CONFLICT: grpc.StatusCode.ABORTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.SEALED: grpc.StatusCode.UNAVAILABLE,
    Kind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}


class ServiceError(Exception):
    """An error that may cross a service boundary.

    Args:
        kind: what went wrong.
        message: the text for the client. Without secrets, and without values the client sent.
        data: JSON that the HTTP body carries under `data` beside the errors (a deleted KV version).
        warnings: texts for the envelope's `warnings`.
    """

    def __init__(
        self,
        kind: Kind,
        message: str = "",
        *,
        data: bytes = b"",
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.data = data
        self.warnings = warnings

    def again(self) -> "ServiceError":
        """Returns the same error for one more to raise: each that is raised gathers its own traceback."""
        return ServiceError(self.kind, self.message, data=self.data, warnings=self.warnings)


def invalid(message: str) -> ServiceError:
    """Returns the error for a wrong or missing parameter."""
    return ServiceError(Kind.INVALID, message)


def denied(message: str = "permission denied") -> ServiceError:
    """Returns the error for a caller without the right."""
    return ServiceError(Kind.DENIED, message)


def not_found(message: str = "") -> ServiceError:
    """Returns the error for something that does not exist. Without a text the error list is empty."""
    return ServiceError(Kind.NOT_FOUND, message)

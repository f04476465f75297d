"""A request on its way through the gateway, whichever wire it came over."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message

from strongroom_gateway.audit.entries import Subject
from strongroom_gateway.contract.routes import MethodSpec
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.durations import parse_seconds
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import StreamCaller


def _names() -> Iterator[tuple[str, str]]:
    """Yields names for requests, each time others: a random UUID (RFC 9562, version 4) and a W3C trace context."""
    while True:
        pool = os.urandom(256 * 24).hex()  # one system call for many
        for start in range(0, len(pool), 48):
            digits = pool[start : start + 48]
            request_id = (
                f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"
            )
            yield request_id, f"00-{digits[:32]}-{digits[32:]}-00"


# What a request is called, and the trace of one that came without: audit entries name both.
names = _names()

# W3C Trace Context, section 3.2: version ff and ids of zeros alone are none.
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(sent: str | None, fresh: str) -> tuple[str, bool]:
    """Returns the trace context of a request, and whether it is the client's.

    What is none goes no further: into no log, no entry and no other process.

    Args:
        sent: `traceparent` as the client sent it; None where it did not.
        fresh: what takes its place.
    """
    if sent is not None and _TRACE.fullmatch(sent) is not None:
        return sent, True
    return fresh, False


def wrap_ttl_of(sent: str | None) -> int | None:
    """Returns for how many seconds a client wants its answer wrapped; None where it does not.

    Args:
        sent: `X-Vault-Wrap-TTL` as the client sent it; None where it did not.

    Raises:
        ServiceError: INVALID.
    """
    if not sent:
        return None
    try:
        return parse_seconds(sent) or None
    except ValueError as error:
        raise invalid(f"X-Vault-Wrap-TTL: {error}") from None


def _no_header(name: str) -> str | None:
    return None


class Call(msgspec.Struct):
    """A request, whichever wire it came over.

    Args:
        spec: the method; None where the path leads nowhere, which only those learn who may go there.
        message: its request message; None where what was sent cannot be read as one.
        path: the whole canonical path; a list's ends with a slash.
        mount: where it leads.
        token_text: the client's token; empty for none.
        client_address: its IP address.
        operation: what it does, as policies name it.
        parameters: gives what the client sent, for policies and audit entries.
        missing: what to say, once the policies have let the request through, where `spec` or `message` is None.
        wrap_ttl: seconds for which the answer is to be wrapped; None for not at all.
        traceparent: the W3C trace context.
        foreign_trace: the client sent it.
        deadline: monotonic time; 0 for none.
        linearizable: reads must ask etcd.
        method: the HTTP method, or the full name of the gRPC method.
        header: gives a header of the request, or a value of its metadata, by its name in lower case.
        headers: what the answer says beside itself, by names in lower case.
        audited_headers: what entries show of the request's: values, and whether as HMACs.
        token_refused: it was refused for its token, or for having none, before any policy was asked.
    """

    spec: MethodSpec | None
    message: Message | None
    path: str
    mount: MountContext | None
    token_text: str
    client_address: str
    operation: str
    parameters: Callable[[], dict[str, Any]]
    missing: ServiceError | None = None
    wrap_ttl: int | None = None
    traceparent: str = ""
    foreign_trace: bool = False
    deadline: float = 0.0
    linearizable: bool = False
    method: str = ""
    header: Callable[[str], str | None] = _no_header
    headers: list[tuple[str, str]] = []
    audited_headers: dict[str, tuple[str, bool]] = {}
    warnings: list[str] = []
    token_refused: bool = False
    request_id: str = msgspec.field(default_factory=lambda: next(names)[0])

    def refusal(self) -> ServiceError:
        """Returns what to say where `spec` or `message` is None.

        A fresh one each time: with its traceback, one that is kept here would be a cycle; `missing` is of many calls.
        """
        return self.missing.again() if self.missing is not None else ServiceError(Kind.NOT_FOUND)


def context_of(call: Call) -> RequestContext:
    """Returns what travels with a request before it is known who asks."""
    return RequestContext(
        request_id=call.request_id,
        path=call.path,
        mount=call.mount,
        client_address=call.client_address,
        deadline=call.deadline,
        traceparent=call.traceparent,
        linearizable=call.linearizable,
    )


def subject_of(call: Call) -> Subject:
    """Returns what the entries of a request are about."""
    try:
        parameters = call.parameters()
    except ServiceError:
        parameters = {}
    return Subject(
        request_id=call.request_id,
        operation="update" if call.operation == "write" else call.operation,
        path=call.path,
        mount=call.mount,
        client_address=call.client_address,
        trace_id=call.traceparent.split("-")[1] if call.traceparent.count("-") == 3 else "",
        token_text=call.token_text,
        wrap_ttl=call.wrap_ttl,
        parameters=parameters,
        headers=call.audited_headers,
    )


def service_of(services: Mapping[str, StreamCaller], spec: MethodSpec) -> StreamCaller:
    """Returns who answers a method.

    Raises:
        ServiceError: UNAVAILABLE.
    """
    service = services.get(spec.area)
    if service is None:
        raise ServiceError(Kind.UNAVAILABLE, "the service is not configured")
    return service

"""From an HTTP request to a call of the pipeline, and from its answer to an HTTP response."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from strongroom.options.v1 import options_pb2 as options
from strongroom.sys.v1 import system_pb2
from strongroom_gateway.call import Call, names, trace_of, wrap_ttl_of
from strongroom_gateway.contract.bodies import (
    MAX_KEPT_BODY,
    form_as_json,
    parameters_of,
    parse_body,
)
from strongroom_gateway.contract.routes import LISTS, WITH_BODY, MethodSpec, RouteTable
from strongroom_gateway.http import envelope
from strongroom_gateway.http.cors import HeaderList, check
from strongroom_gateway.http.paths import PREFIX, check_namespace, tidied
from strongroom_gateway.http.targets import Targets
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.pipeline import Answer, Pipeline
from strongroom_gateway.settings.store import SettingsStore
from strongroom_gateway.streams import Streams
from strongroom_gateway.wrapping.older_unwrap import OlderUnwrap
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import Shape

JSON = "application/json"
MAX_SECONDS = 90.0
MAX_TOKEN = 8 << 10
_LARGE = 256 << 10  # what is read in a thread: others are answered meanwhile
_FORM = "application/x-www-form-urlencoded"
_MERGE_PATCH = "application/merge-patch+json"
_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f", "")

_OPERATIONS = {
    "GET": options.OPERATION_READ,
    "HEAD": options.OPERATION_READ,
    "LIST": options.OPERATION_LIST,
    "SCAN": options.OPERATION_SCAN,
    "POST": options.OPERATION_UPDATE,
    "PUT": options.OPERATION_UPDATE,
    "DELETE": options.OPERATION_DELETE,
    "PATCH": options.OPERATION_PATCH,
}

Headers = Callable[[str], str | None]


class HttpRequest(msgspec.Struct, frozen=True, gc=False):
    """A request, whichever server took it.

    Args:
        method: the verb.
        path: decoded once.
        query: as it came.
        header: gives a header by its name in lower case.
        body: reads the body; raises TOO_LARGE.
        client_address: the IP address.
    """

    method: str
    path: str
    query: str
    header: Headers
    body: Callable[[], Awaitable[bytes]]
    client_address: str


class HttpResponse(msgspec.Struct, frozen=True, gc=False):
    """A response.

    Args:
        status: of HTTP.
        body: empty for none.
        headers: by names in lower case.
        content_type: of the body.
        stream: what follows the body, for as long as the client listens; None for nothing.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON
    stream: AsyncGenerator[bytes] | None = None


class HttpWire:
    """Vault's HTTP API in front of the pipeline.

    Args:
        routes: the methods.
        mounts: the mounts.
        pipeline: handles requests.
        streams: handles those that are answered by a stream.
        settings: who of other origins may ask, and headers of answers.
        clock: for deadlines.
        check_seal: raises SEALED where there are no keys.
        older_unwrap: knows requests that open wrapped answers in the older way.
    """

    def __init__(
        self,
        routes: RouteTable,
        mounts: MountTable,
        pipeline: Pipeline,
        streams: Streams,
        settings: SettingsStore,
        clock: Clock,
        check_seal: Callable[[], None],
        older_unwrap: OlderUnwrap,
    ) -> None:
        self._pipeline = pipeline
        self._streams = streams
        self._settings = settings
        self._clock = clock
        self._check_seal = check_seal
        self._older_unwrap = older_unwrap
        self._targets = Targets(routes, mounts)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Returns the response to a request. Never raises but for bugs."""
        if "//" in request.path and (location := tidied(request.path, request.query)):
            return HttpResponse(307, headers=(("location", location),))
        origin = request.header("origin")
        call: Call | None = None
        namespace = request.header("x-vault-namespace")
        extra = _named(namespace)
        try:
            if origin is not None:
                cors = await self._cors(request, origin)
                extra = (*extra, *cors)
                if cors and request.method == "OPTIONS":
                    return HttpResponse(200, headers=extra)
            check_namespace(namespace)
            call = await self._call(request)
            await self._older_unwrap.lead(call)
            if call.spec is not None and call.spec.shape is not Shape.UNARY:
                return await self._stream(call, extra)
            answer = await self._pipeline.handle(call)
        except ServiceError as error:
            headers = extra if call is None else (*extra, *call.headers)
            if not request.path.startswith(PREFIX):
                headers = (*headers, *await self._ui_headers())
            return HttpResponse(envelope.STATUS[error.kind], _error_body(call, error), headers)
        return _response(call, answer, extra)

    async def _stream(self, call: Call, extra: HeaderList) -> HttpResponse:
        """Returns the response that begins with the first message; a refusal comes before any.

        Raises:
            ServiceError: what the client is to be told.
        """
        call.deadline = 0.0  # it goes on for as long as the client listens
        messages = self._streams.watch(call, _anyway)
        first = await anext(messages)
        return HttpResponse(
            200,
            first.document,
            (*extra, *call.headers),
            first.content_type,
            stream=_documents(messages),
        )

    async def _cors(self, request: HttpRequest, origin: str) -> HeaderList:
        """Returns what an answer says to a page of another origin; nothing where none may.

        Raises:
            ServiceError: DENIED, UNSUPPORTED.
        """
        cors = (await self._settings.last()).cors
        if not cors.enabled:
            return ()
        asked = request.header("access-control-request-method")
        return check(cors, origin, request.method, asked)

    async def _ui_headers(self) -> HeaderList:
        headers = (await self._settings.last()).ui_headers
        return tuple((name, value) for name, values in headers.items() for value in values)

    async def _call(self, request: HttpRequest) -> Call:
        header, text = request.header, request.query
        query = _parameters(text) if text else {}
        if request.method == "OPTIONS" and not self._targets.work_sealed(request.path):
            self._check_seal()  # before it is refused, as in OpenBao
        operation = _operation(request.method, query)
        helps = operation == options.OPERATION_READ and _flag(query, "help")
        if operation == options.OPERATION_PATCH:
            _check_patch(header)
        body = b""
        if operation in WITH_BODY:
            query = {}  # says nothing, as in OpenBao: policies and audit entries see the body
            body = await request.body()
        elif operation in LISTS and query.get("limit") == "max":
            query["limit"] = "0"  # as many as policies let the caller have
        target = await self._targets.of(request.path, operation, helps=helps)
        token = _token(header)
        large = len(body) > _LARGE
        excess = _excess(body, target.spec, token) if large else None
        if excess is not None:
            body = b""
        if body and _is_form(header, body):
            body = form_as_json(body)
        members = await asyncio.to_thread(parse_body, body) if large else parse_body(body)
        request_id, fresh_trace = next(names)
        # A request that came without a trace context gets one of its own: audit entries name it.
        trace, foreign = trace_of(header("traceparent"), fresh_trace)
        call = Call(
            spec=target.spec,
            message=None,
            path=target.path,
            mount=target.mount,
            token_text=token,
            client_address=request.client_address,
            operation=target.capability,
            parameters=lambda: parameters_of(members) if members else dict(query),
            missing=target.missing,
            wrap_ttl=wrap_ttl_of(header("x-vault-wrap-ttl")),
            traceparent=trace,
            foreign_trace=foreign,
            deadline=self._clock.monotonic() + MAX_SECONDS,
            linearizable=header("x-strongroom-consistency") == "linearizable",
            request_id=request_id,
            method=request.method,
            header=header,
        )
        if target.spec is not None and excess is not None:
            call.missing = excess
        elif target.spec is not None:
            try:
                given = (call, target.spec, body, members, query, target.captures)
                if large:
                    await asyncio.to_thread(self._fill, *given)
                else:
                    self._fill(*given)
            except ServiceError as error:
                # Said only to those whom the policies let through: they come before what a request says.
                call.message, call.missing = None, error.again()
        return call

    def _fill(
        self,
        call: Call,
        spec: MethodSpec,
        body: bytes,
        members: Mapping[str, Any],
        query: Mapping[str, str],
        captures: Mapping[str, str],
    ) -> None:
        plan = spec.request_plan
        call.message, unknown = plan.decode(body, members, query, captures)
        if unknown:
            names = " ".join(sorted(unknown))
            call.warnings.append(f"Endpoint ignored these unrecognized parameters: [{names}]")
        # Some clients repeat in the body what stands in the path: nothing is lost with that.
        both = () if plan.takes_any else captures.keys() & members.keys()
        replaced = sorted(name for name in both if not _says(members[name], captures[name]))
        if replaced:
            call.warnings.append(
                "Endpoint replaced the value of these parameters with the values captured from the "
                f"endpoint's path: [{' '.join(replaced)}]"
            )


def _parameters(text: str) -> dict[str, str]:
    """Returns the parameters of a query.

    Raises:
        ServiceError: INVALID for one that is there twice: which one counts, two readers could see differently.
    """
    pairs = parse_qsl(text, keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise invalid("the query has a parameter twice")
    return query


def _excess(body: bytes, spec: MethodSpec | None, token: str) -> ServiceError | None:
    """Returns what to say of a body that is larger than what may be sent to a method, and without a token."""
    most = spec.most_bytes if spec is not None and token else MAX_KEPT_BODY
    if len(body) <= most:
        return None
    return ServiceError(
        Kind.TOO_LARGE, f"http: request body too large: at most {most >> 20} MiB are taken here"
    )


def _says(raw: msgspec.Raw, text: str) -> bool:
    """Returns whether a member of a body is a text, or nothing."""
    try:
        return msgspec.json.decode(raw) in (text, None)
    except (msgspec.DecodeError, RecursionError):
        return False


async def _anyway() -> None:
    """Streams over HTTP hang on no mount."""


async def _documents(messages: AsyncGenerator[Any]) -> AsyncGenerator[bytes]:
    """Yields the documents of messages until there are no more, or they are refused: the status is sent by then."""
    async with contextlib.aclosing(messages):
        with contextlib.suppress(ServiceError):
            async for message in messages:
                yield message.document


def _named(namespace: str | None) -> HeaderList:
    """Returns the header by which clients that name a namespace are told that it was looked at."""
    if namespace and namespace.isascii() and namespace.isprintable():
        return (("x-vault-namespace", namespace),)
    return ()


def _operation(method: str, query: dict[str, str]) -> int:
    operation = _OPERATIONS.get(method)
    if operation is None:
        raise ServiceError(Kind.UNSUPPORTED, "unsupported operation")
    if query and operation == options.OPERATION_READ:
        listing = _flag(query, "list")
        if listing and _flag(query, "scan"):
            raise invalid("list and scan: only one of them may be true")
        if listing:
            return options.OPERATION_LIST
        if _flag(query, "scan"):
            return options.OPERATION_SCAN
    return operation


def _flag(query: dict[str, str], name: str) -> bool:
    if name not in query:
        return False
    text = query.get(name, "").lower()
    if text not in _TRUE + _FALSE:
        raise invalid(f"{name}: takes true or false")
    query.pop(name, None)
    return text in _TRUE


def _check_patch(header: Headers) -> None:
    kind = (header("content-type") or "").partition(";")[0].strip().lower()
    if kind != _MERGE_PATCH:
        raise ServiceError(Kind.UNSUPPORTED_MEDIA, f"PATCH requires Content-Type: {_MERGE_PATCH}")


def _is_form(header: Headers, body: bytes) -> bool:
    """Returns whether a body is a form: by its type, unless it looks like JSON all the same, as nearly all do."""
    if body[:1] in (b"{", b"["):
        return False
    return (header("content-type") or "").partition(";")[0].strip().lower() == _FORM


def _token(header: Headers) -> str:
    token = header("x-vault-token")
    if not token:
        authorization = header("authorization") or ""
        token = authorization[7:] if authorization.startswith("Bearer ") else ""
    if len(token) > MAX_TOKEN:
        raise invalid("X-Vault-Token: is too long")
    return token


def _error_body(call: Call | None, error: ServiceError) -> bytes:
    if call is None:
        return envelope.error_document(error)
    mount_type = call.mount.type if call.mount is not None else ""
    # Whom no policy was asked about, policies cannot have refused: a user who is locked, say.
    by_policies = not (call.token_refused or (call.spec is not None and call.spec.unauthenticated))
    return envelope.error_document(error, call.request_id, mount_type, by_policies=by_policies)


def _response(call: Call, answer: Answer, extra: HeaderList) -> HttpResponse:
    spec, encoded = call.spec, answer.encoded
    if spec is None:
        return HttpResponse(404, headers=extra)
    headers = (*extra, *call.headers)
    if spec.body == options.BODY_RAW and not answer.wrapped:
        raw: Any = answer.response
        return HttpResponse(200, raw.document, headers, raw.content_type)
    body_form = options.BODY_UNSPECIFIED if answer.wrapped else spec.body
    mount_type = call.mount.type if call.mount is not None else ""
    body = envelope.document(encoded, body_form, call.request_id, mount_type)
    status = encoded.status or spec.success_status or (200 if body else 204)
    if isinstance(answer.response, system_pb2.ReadHealthResponse):
        status = _health_status(call.message, answer.response)
    return HttpResponse(status, body, headers)


def _health_status(request: Any, health: system_pb2.ReadHealthResponse) -> int:
    """Returns the status that load balancers look at; the request may choose others."""
    if not health.initialized:
        return request.uninitcode or 501
    if health.sealed:
        return request.sealedcode or 503
    return request.activecode or 200

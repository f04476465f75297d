"""A request's way through the gateway, the same for both wires.

Token, policy, audit entry, service, audit entry, wrapping, answer; see `docs/architecture.md`. Both entries are with
the audit service before the client gets its answer; what changes something is not begun before its first entry is.
"""

import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message

from strongroom_gateway.audit.entries import Outcome, Subject
from strongroom_gateway.audit.sink import AuditSink
from strongroom_gateway.contract.encode import Encoded, ResponsePlan
from strongroom_gateway.contract.routes import MethodSpec
from strongroom_gateway.http import envelope
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.streams import SHOW, admitted
from strongroom_gateway.tokens import Identity, TokenGate
from strongroom_gateway.wrapping.rpc import wrap_info
from strongroom_gateway.wrapping.storage import WrapStore
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import Kind, ServiceError, denied, invalid
from strongroom_runtime.handlers import StreamCaller
from strongroom_runtime.policy import Acl, Decision
from strongroom_runtime.telemetry import Telemetry

HELP = "/strongroom.sys.v1.SystemService/ReadHelp"
_WRAP = "/strongroom.sys.v1.WrappingService/Wrap"
_WRAPPING = "/strongroom.sys.v1.WrappingService/"
_LOOKUP = "/strongroom.auth.v1.TokenService/LookupToken"
_LOOKUP_SELF = "/strongroom.auth.v1.TokenService/LookupSelf"
_RENEW_SELF = "/strongroom.auth.v1.TokenService/RenewSelf"


class Call(msgspec.Struct):
    """A request, whichever wire it came over.

    Args:
        spec: the method; None where the path leads nowhere, which only those learn who may go there.
        message: its request message.
        path: the whole canonical path; a list's ends with a slash.
        mount: where it leads.
        token_text: the client's token; empty for none.
        client_address: its IP address.
        operation: what it does, as policies name it.
        parameters: gives what the client sent, for policies and audit entries.
        missing: what to say where `spec` is None.
        wrap_ttl: seconds for which the answer is to be wrapped; None for not at all.
        traceparent: the W3C trace context.
        foreign_trace: the client sent it.
        deadline: monotonic time; 0 for none.
        linearizable: reads must ask etcd.
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
    warnings: list[str] = []
    request_id: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))


class Answer(msgspec.Struct):
    """What came of it."""

    response: Message
    encoded: Encoded
    wrapped: bool = False


class Pipeline:
    """Handles requests.

    Args:
        services: who answers, by the package of the method: `auth` for strongroom.auth.v1.
        gate: tokens and policies.
        audit: where entries go.
        wraps: where wrapped answers are kept.
        mounts: where what a request acts upon may lie.
        sealed: whether the gateway has keys.
        telemetry: of the gateway, for the span around a request.
    """

    def __init__(
        self,
        services: Mapping[str, StreamCaller],
        gate: TokenGate,
        audit: AuditSink,
        wraps: WrapStore,
        mounts: MountTable,
        sealed: Callable[[], bool],
        telemetry: Telemetry,
    ) -> None:
        self._telemetry = telemetry
        self._services = services
        self._gate = gate
        self._audit = audit
        self._wraps = wraps
        self._mounts = mounts
        self._sealed = sealed

    async def handle(self, call: Call) -> Answer:
        """Returns the answer to a request.

        Raises:
            ServiceError: what the client is to be told.
        """
        if not self._telemetry.enabled:
            return await self._handle(call)
        name = call.spec.name.removeprefix("/") if call.spec is not None else "unknown path"
        parent = call.traceparent if call.foreign_trace else ""
        with self._telemetry.span(name, parent) as call.traceparent:
            return await self._handle(call)

    async def stream(self, call: Call, check: Callable[[], Awaitable[None]]) -> AsyncGenerator[Any]:
        """Yields the messages of a server stream for as long as the token and its policies allow.

        Its start is audited as a request of its own; messages hold names and no values.

        Args:
            call: the request.
            check: raises once what is watched is gone.

        Raises:
            ServiceError: what the client is to be told.
        """
        spec, mount = call.spec, call.mount
        if spec is None or call.message is None or mount is None:
            raise ServiceError(Kind.INTERNAL, "internal error")
        if self._sealed():
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        context, subject = _context(call), _subject(call)
        try:
            identity = await self._identify(call, context)
            if identity is not None:
                subject.token = identity.token
            if identity is not None and identity.limited:
                if identity.last_use:
                    await self._gate.finish(identity, context)
                raise invalid("a token with a limited number of uses cannot open a stream")
            decided = await self._decide(call, identity, context)
        except ServiceError as error:
            await self._audit.both(subject, Outcome(error=error.message), context)
            raise
        await self._audit.both(subject, Outcome(), context)

        async def admit() -> Acl:
            if self._sealed():
                raise ServiceError(Kind.SEALED, "Vault is sealed")
            await check()
            identity = await self._gate.resolve(call.token_text, call.client_address, context)
            await self._decide(call, identity, context)
            return await self._gate.acl(identity.token.policies, context)

        show = SHOW[spec.name]
        messages = self._service(spec).stream(spec.name, call.message, decided)
        async for message in admitted(
            messages, admit, lambda acl, each: show(acl, mount.path, each)
        ):
            yield message

    async def _handle(self, call: Call) -> Answer:
        context = _context(call)
        spec = call.spec
        if spec is not None and spec.works_sealed:
            response = await self._call(spec, call.message, context)
            return Answer(response, spec.response_plan.encode(response))
        if self._sealed():
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        return await self._audited(call, context)

    async def _audited(self, call: Call, context: RequestContext) -> Answer:
        subject = _subject(call)
        spec, identity = call.spec, None
        reads = spec is None or spec.no_side_effects
        announced = False
        try:
            identity = await self._identify(call, context)
            if identity is not None:
                subject.token = identity.token
                reads = reads and not identity.last_use
            context = await self._decide(call, identity, context)
            if not reads:
                await self._audit.request(subject, context)
                announced = True
            answer = await self._run(call, identity, context)
        except ServiceError as error:
            outcome = Outcome(error=error.message or error.kind.value)
            await self._record(subject, outcome, context, announced=announced)
            raise
        finally:
            if identity is not None and identity.last_use:
                await self._gate.finish(identity, context)
        encoded = answer.encoded
        outcome = Outcome(
            data=encoded.data,
            auth=encoded.auth,
            wrap_info=encoded.wrap_info,
            lease_id=encoded.lease_id,
        )
        await self._record(subject, outcome, context, announced=announced)
        return answer

    async def _record(
        self, subject: Subject, outcome: Outcome, context: RequestContext, *, announced: bool
    ) -> None:
        if announced:
            await self._audit.response(subject, outcome, context)
        else:
            await self._audit.both(subject, outcome, context)

    async def _identify(self, call: Call, context: RequestContext) -> Identity | None:
        """Returns who asks; None where nobody needs to, and nobody did."""
        spec = call.spec
        if spec is not None and spec.unauthenticated:
            if not call.token_text or spec.name.startswith(_WRAPPING):
                return None
            # A token may be there all the same; what it shows is then more.
            with contextlib.suppress(ServiceError):
                return await self._gate.resolve(call.token_text, call.client_address, context)
            return None
        if not call.token_text:
            raise denied()
        return await self._gate.resolve(call.token_text, call.client_address, context)

    async def _decide(
        self, call: Call, identity: Identity | None, context: RequestContext
    ) -> RequestContext:
        """Returns the context with what the policies allow.

        Raises:
            ServiceError: DENIED.
        """
        spec = call.spec
        token = identity.token if identity is not None else None
        if spec is not None and spec.unauthenticated:
            return msgspec.structs.replace(context, token=token)
        if identity is None:
            raise denied()
        if call.operation == "help":
            return msgspec.structs.replace(context, token=token)  # what it says is no secret
        acl = await self._gate.acl(identity.token.policies, context)
        decision = acl.decide(
            call.path, call.operation, parameters=call.parameters, wrap_ttl=call.wrap_ttl
        )
        if not decision.allowed or (spec is not None and spec.sudo and not decision.sudo):
            raise denied()
        if decision.pagination_limit and spec is not None:
            _bound(call, decision)
        if spec is not None and spec.subject:
            context = await self._on_subject(call, spec.subject, acl, context)
        return msgspec.structs.replace(
            context,
            token=token,
            may_create=decision.may_create,
            may_update=decision.may_update,
            sudo=decision.sudo,
        )

    async def _on_subject(
        self, call: Call, field: str, acl: Acl, context: RequestContext
    ) -> RequestContext:
        """Returns the context with what is to be known of the path that a request acts upon."""
        subject = str(getattr(call.message, field, "")).strip("/")
        path = call.path if call.path.endswith(f"/{subject}") else f"{call.path}/{subject}"
        decision = acl.decide(path, call.operation, parameters=call.parameters)
        found = (await self._mounts.current()).find(subject + "/")
        return msgspec.structs.replace(
            context,
            mount=found[1] if found is not None else context.mount,
            of_others=decision.allowed,
        )

    async def _run(self, call: Call, identity: Identity | None, context: RequestContext) -> Answer:
        spec = call.spec
        if spec is None or call.message is None:
            raise call.missing or ServiceError(Kind.NOT_FOUND)
        if spec.name == _WRAP and not call.wrap_ttl:
            raise invalid("endpoint requires response wrapping to be used")
        if spec.name.startswith(_WRAPPING) and not getattr(call.message, "token", "-"):
            call.message.token = call.token_text  # type: ignore[attr-defined]
        response = await self._call(spec, call.message, context)
        _fill_own_token(spec.name, response, call.token_text)
        encoded = spec.response_plan.encode(response)
        if call.warnings:
            encoded.warnings = [*(encoded.warnings or []), *call.warnings]
        if not call.wrap_ttl or encoded.wrap_info is not None:
            return Answer(response, encoded)
        return await self._wrap(call, spec, response, encoded, call.wrap_ttl)

    async def _wrap(
        self, call: Call, spec: MethodSpec, response: Message, encoded: Encoded, ttl: int
    ) -> Answer:
        mount_type = call.mount.type if call.mount is not None else ""
        body = envelope.document(encoded, spec.body, call.request_id, mount_type)
        if not body:
            return Answer(response, encoded)
        text, wrapped = await self._wraps.wrap(body, call.path, ttl)
        accessor = str((encoded.auth or {}).get("accessor", ""))
        info = wrap_info(text, wrapped, accessor)
        return Answer(
            type(response)(),
            Encoded(wrap_info=ResponsePlan(info.DESCRIPTOR).fields(info)),
            wrapped=True,
        )

    async def _call(
        self, spec: MethodSpec, message: Message | None, context: RequestContext
    ) -> Any:
        if message is None:
            raise ServiceError(Kind.INTERNAL, "internal error")
        return await self._service(spec).call(spec.name, message, context)

    def _service(self, spec: MethodSpec) -> StreamCaller:
        service = self._services.get(spec.name.split(".")[1])
        if service is None:
            raise ServiceError(Kind.UNAVAILABLE, "the service is not configured")
        return service


def _context(call: Call) -> RequestContext:
    return RequestContext(
        request_id=call.request_id,
        path=call.path,
        mount=call.mount,
        client_address=call.client_address,
        deadline=call.deadline,
        traceparent=call.traceparent,
        linearizable=call.linearizable,
    )


def _subject(call: Call) -> Subject:
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
    )


def _fill_own_token(method: str, response: Any, text: str) -> None:
    """Puts in the caller's own token, which no service keeps."""
    if method == _LOOKUP_SELF or (method == _LOOKUP and not response.info.id):
        response.info.id = text
    elif method == _RENEW_SELF:
        response.auth.client_token = text


def _bound(call: Call, decision: Decision) -> None:
    """Holds a list to the most that its policy allows: zero, negative and absent limits among them."""
    message: Any = call.message
    if message is None or "limit" not in message.DESCRIPTOR.fields_by_name:
        return
    if not 0 < message.limit <= decision.pagination_limit:
        raise denied()

"""A request's way through the gateway, the same for both wires.

Token, policy, audit entry, service, audit entry, wrapping, answer; see `docs/architecture.md`. Both entries are with
the audit service before the client gets its answer; what changes something is not begun before its first entry is.
"""

from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.admission import WRAPPING, Admission
from strongroom_gateway.audit.entries import Outcome, Subject
from strongroom_gateway.audit.sink import AuditSink
from strongroom_gateway.call import Call, context_of, service_of, subject_of
from strongroom_gateway.contract.encode import Encoded, ResponsePlan
from strongroom_gateway.contract.routes import MethodSpec
from strongroom_gateway.http import envelope
from strongroom_gateway.observe.observer import Observer
from strongroom_gateway.settings.rules import Rules
from strongroom_gateway.tokens import Identity
from strongroom_gateway.wrapping.rpc import wrap_info
from strongroom_gateway.wrapping.storage import WrapStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import StreamCaller

HELP = "/strongroom.sys.v1.SystemService/ReadHelp"
_SEAL = "/strongroom.seal.v1.SealService/Seal"
_WRAP = "/strongroom.sys.v1.WrappingService/Wrap"
_LOOKUPS = frozenset(
    f"/strongroom.auth.v1.TokenService/{name}"
    for name in ("LookupToken", "ReadToken", "LookupSelf", "LookupSelfByUpdate")
)
_RENEW_SELF = "/strongroom.auth.v1.TokenService/RenewSelf"


class Answer(msgspec.Struct):
    """What came of it."""

    response: Message
    encoded: Encoded
    wrapped: bool = False


class Pipeline:
    """Handles requests.

    Args:
        services: who answers, by the package of the method: `auth` for strongroom.auth.v1.
        admission: who may do what.
        rules: what the settings demand of requests.
        audit: where entries go.
        wraps: where wrapped answers are kept.
        observer: watches what happens.
    """

    def __init__(
        self,
        services: Mapping[str, StreamCaller],
        admission: Admission,
        rules: Rules,
        audit: AuditSink,
        wraps: WrapStore,
        observer: Observer,
    ) -> None:
        self._observer = observer
        self._rules = rules
        self._services = services
        self._admission = admission
        self._audit = audit
        self._wraps = wraps

    def handle(self, call: Call) -> Coroutine[Any, Any, Answer]:
        """Returns the answer to a request.

        Raises:
            ServiceError: what the client is to be told.
        """
        return self._observer.run(call, self._handle)

    async def _handle(self, call: Call) -> Answer:
        context = context_of(call)
        spec = call.spec
        if spec is not None and spec.works_sealed:
            await self._rules.apply_lightly(call, context)
            if call.message is None:
                raise call.refusal()
            response = await self._call(spec, call.message, context)
            return Answer(response, spec.response_plan.encode(response))
        self._admission.check_seal()
        await self._rules.apply(call, context)
        return await self._audited(call, context)

    async def _audited(self, call: Call, context: RequestContext) -> Answer:
        subject = subject_of(call)
        spec, identity = call.spec, None
        reads = spec is None or spec.no_side_effects
        announced = False
        try:
            identity = await self._admission.identify(call, context)
            if identity is not None:
                subject.token = identity.token
                reads = reads and not identity.last_use
            context = await self._admission.decide(call, identity, context)
            makes = reads and _may_create(spec, context)
            answer = await self._without_making(call, identity, context) if makes else None
            if answer is None:
                if makes or not reads:
                    await self._audit.request(subject, context)
                    announced = True
                answer = await self._run(call, identity, context)
        except ServiceError as error:
            outcome = Outcome(error=error.message or error.kind.value)
            await self._record(subject, outcome, context, announced=announced)
            raise
        finally:
            await self._admission.finish(identity, context)
        if spec is not None and spec.name == _SEAL:
            # The keys are gone, and the audit devices with them; that it was asked for stands in the first entry.
            return answer
        encoded = answer.encoded
        outcome = Outcome(
            data=encoded.data,
            fields=encoded.fields,
            auth=encoded.auth,
            wrap_info=encoded.wrap_info,
            lease_id=encoded.lease_id,
        )
        await self._record(subject, outcome, context, announced=announced)
        return answer

    def _record(
        self, subject: Subject, outcome: Outcome, context: RequestContext, *, announced: bool
    ) -> Coroutine[Any, Any, None]:
        write = self._audit.response if announced else self._audit.both
        return write(subject, outcome, context)

    async def _without_making(
        self, call: Call, identity: Identity | None, context: RequestContext
    ) -> Answer | None:
        """Returns the answer where what the method works on is there; None where it would have to be made."""
        try:
            return await self._run(
                call, identity, msgspec.structs.replace(context, may_create=False)
            )
        except ServiceError as error:
            if error.kind is not Kind.DENIED:
                raise
        return None

    async def _run(self, call: Call, identity: Identity | None, context: RequestContext) -> Answer:
        spec = call.spec
        if spec is None or call.message is None:
            raise call.refusal()
        if spec.name == _WRAP and not call.wrap_ttl:
            raise invalid("endpoint requires response wrapping to be used")
        if spec.name.startswith(WRAPPING) and not getattr(call.message, "token", "-"):
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
        # The members that stand beside `data` for old clients are not wrapped with it, as in Vault.
        form = spec.body if spec.body != options.BODY_TOP_LEVEL else options.BODY_UNSPECIFIED
        body = envelope.document(encoded, form, call.request_id, mount_type)
        if not body:
            return Answer(response, encoded)
        text, wrapped = await self._wraps.wrap(body, call.path, ttl)
        # That of a token, or of a secret id: whoever hands the answer on can take back what is in it.
        accessor = str((encoded.auth or {}).get("accessor", ""))
        secret = getattr(response, "secret", None)
        accessor = accessor or getattr(secret, "secret_id_accessor", "")
        info = wrap_info(text, wrapped, accessor)
        return Answer(
            type(response)(),
            Encoded(wrap_info=ResponsePlan(info.DESCRIPTOR).fields(info)),
            wrapped=True,
        )

    def _call(
        self, spec: MethodSpec, message: Message | None, context: RequestContext
    ) -> Coroutine[Any, Any, Any]:
        if message is None:
            raise ServiceError(Kind.INTERNAL, "internal error")
        return service_of(self._services, spec).call(spec.name, message, context)


def _may_create(spec: MethodSpec | None, context: RequestContext) -> bool:
    """Returns whether a method that changes nothing may yet make what it works on, as encrypting makes keys."""
    return (
        spec is not None
        and spec.operation == options.OPERATION_CREATE_OR_UPDATE
        and context.may_create
    )


def _fill_own_token(method: str, response: Any, text: str) -> None:
    """Puts in the caller's own token, which no service keeps."""
    if method in _LOOKUPS and not response.info.id:
        response.info.id = text
    elif method == _RENEW_SELF:
        response.auth.client_token = text

"""What the settings of the gateway demand of a request, before anything else is done for it."""

from typing import Any

from strongroom.auth.v1 import gate_pb2
from strongroom_gateway.audit.entries import Outcome
from strongroom_gateway.audit.sink import AuditSink
from strongroom_gateway.call import Call, subject_of
from strongroom_gateway.quotas.limiter import RateLimiter, Verdict
from strongroom_gateway.quotas.limits import exempt
from strongroom_gateway.settings.store import Settings, SettingsStore
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import Caller
from strongroom_runtime.metrics import Metrics

_ROLE = "/strongroom.auth.v1.TokenGateService/ResolveLoginRole"


class Rules:
    """Holds requests of both wires to their quotas, and says which of their headers entries show.

    Args:
        settings: the settings.
        auth: tells the role of a login.
        audit: where refused requests are noted, if that is asked for.
        clock: whose monotonic time intervals run by.
        metrics: of the process.
    """

    def __init__(
        self,
        settings: SettingsStore,
        auth: Caller,
        audit: AuditSink,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._auth = auth
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._limiter = RateLimiter()

    async def apply(self, call: Call, context: RequestContext) -> None:
        """Counts a request; puts into it which headers its entries show, and what its answer says of its quota.

        Raises:
            ServiceError: EXHAUSTED where its quota is used up; SEALED or UNAVAILABLE where settings cannot be read.
        """
        settings = await self._settings.current()
        if settings.audited_headers:
            call.audited_headers = _audited(settings, call)
        verdict = await self._count(settings, call, context)
        if verdict is None:
            return
        if settings.quotas.headers:
            call.headers = _headers(verdict)
        if verdict.allowed:
            return
        self._metrics.limited()
        text = f'request path "{call.path}": rate limit quota exceeded'
        if settings.quotas.audit_refused:
            await self._audit.both(subject_of(call), Outcome(error=text), context)
        raise ServiceError(Kind.EXHAUSTED, text)

    async def turn(self, call: Call, context: RequestContext) -> int:
        """Counts a further message of a stream; returns 0, or after how many seconds to ask again.

        Raises:
            ServiceError: SEALED or UNAVAILABLE where settings cannot be read.
        """
        settings = await self._settings.current()
        verdict = await self._count(settings, call, context, patient=True)
        return 0 if verdict is None else verdict.retry_seconds

    async def apply_lightly(self, call: Call, context: RequestContext) -> None:
        """The same for what is answered without keys or storage: then it is not held to anything.

        Raises:
            ServiceError: EXHAUSTED where its quota is used up.
        """
        try:
            await self.apply(call, context)
        except ServiceError as error:
            if error.kind is Kind.EXHAUSTED:
                raise

    async def _count(
        self, settings: Settings, call: Call, context: RequestContext, *, patient: bool = False
    ) -> Verdict | None:
        """Returns what comes of counting a request; None where no quota is for it."""
        selection = self._settings.selection
        if selection.empty or exempt(call.path, settings.quotas.exempt):
            return None
        mount = call.mount
        if mount is None:
            found = selection.find("", call.path, "")
        else:
            role = await self._role(call, context) if selection.has_roles(mount.uuid) else ""
            found = selection.find(mount.uuid, call.path[len(mount.path) :], role)
        if found is None:
            return None
        now = self._clock.monotonic()
        return self._limiter.take(*found, call.client_address, now, patient=patient)

    async def _role(self, call: Call, context: RequestContext) -> str:
        """Returns the role that a login is for; empty where the request is none."""
        message: Any = call.message
        if call.spec is None or not call.spec.unauthenticated or message is None:
            return ""
        for name in ("username", "role", "role_name"):
            if name in message.DESCRIPTOR.fields_by_name:
                return str(getattr(message, name)).strip().lower()
        if "role_id" not in message.DESCRIPTOR.fields_by_name:
            return ""
        request = gate_pb2.ResolveLoginRoleRequest(role_id=message.role_id)
        try:
            return str((await self._auth.call(_ROLE, request, context)).role_name)
        except ServiceError:
            return ""  # the login itself will say what is wrong


def _audited(settings: Settings, call: Call) -> dict[str, tuple[str, bool]]:
    found = {}
    for name, hmac in settings.audited_headers.items():
        value = call.header(name)
        if value is not None:
            found[name] = (value, hmac)
    return found


def _headers(verdict: Verdict) -> list[tuple[str, str]]:
    headers = [
        ("x-ratelimit-limit", str(verdict.limit)),
        ("x-ratelimit-remaining", str(verdict.remaining)),
        ("x-ratelimit-reset", str(verdict.reset_seconds)),
    ]
    if not verdict.allowed:
        headers.append(("retry-after", str(verdict.retry_seconds)))
    return headers

"""Who asks, and whether the policies let them."""

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from strongroom_gateway.call import Call
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.tokens import Identity, TokenGate
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, denied
from strongroom_runtime.policy import Acl, Decision

WRAPPING = "/strongroom.sys.v1.WrappingService/"


class Admission:
    """Admits requests.

    Args:
        gate: tokens and policies.
        mounts: where what a request acts upon may lie.
        sealed: whether the gateway has keys.
    """

    def __init__(self, gate: TokenGate, mounts: MountTable, sealed: Callable[[], bool]) -> None:
        self._gate = gate
        self._mounts = mounts
        self._sealed = sealed

    def check_seal(self) -> None:
        """Raises SEALED where there are no keys."""
        if self._sealed():
            raise ServiceError(Kind.SEALED, "Vault is sealed")

    async def finish(self, identity: Identity | None, context: RequestContext) -> None:
        """Revokes a token after its last use."""
        if identity is not None and identity.last_use:
            await self._gate.finish(identity, context)

    async def acl(self, identity: Identity, context: RequestContext) -> Acl:
        """Returns what the policies of a token allow."""
        return await self._gate.acl(identity.token.policies, context)

    async def identify(self, call: Call, context: RequestContext) -> Identity | None:
        """Returns who asks; None where nobody needs to, and nobody did."""
        spec = call.spec
        if spec is not None and spec.unauthenticated:
            # A login is nobody's yet, and uses up nothing of a token that comes with it.
            login = spec.mount is not None
            if not call.token_text or login or spec.name.startswith(WRAPPING):
                return None
            # A token may be there all the same; what it shows is then more.
            with contextlib.suppress(ServiceError):
                return await self._gate.resolve(call.token_text, call.client_address, context)
            return None
        try:
            if not call.token_text:
                raise denied()
            return await self._gate.resolve(call.token_text, call.client_address, context)
        except ServiceError as error:
            call.token_refused = error.kind is Kind.DENIED
            raise

    async def decide(
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


def _bound(call: Call, decision: Decision) -> None:
    """Holds a list to the most that its policy allows, which is what one without a limit gets, as in OpenBao.

    Raises:
        ServiceError: DENIED for more, and for a negative limit.
    """
    message: Any = call.message
    if message is None or "limit" not in message.DESCRIPTOR.fields_by_name:
        return
    if not 0 <= message.limit <= decision.pagination_limit:
        raise denied()
    message.limit = message.limit or decision.pagination_limit

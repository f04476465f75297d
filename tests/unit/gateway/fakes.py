"""What stands around the way of a request in tests."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from strongroom_gateway.audit.entries import Outcome, Subject
from strongroom_gateway.call import Call
from strongroom_gateway.tokens import Identity
from strongroom_runtime.context import RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError, denied
from strongroom_runtime.policy import Acl, parse_policy

ALLOWED = 'path "transit/encrypt/orders" { capabilities = ["update"] }'


@dataclass
class Gate:
    """Tokens and policies that a test changes."""

    policy: str = ALLOWED
    revoked: bool = False
    limited: bool = False

    async def resolve(self, text: str, address: str, context: RequestContext) -> Identity:
        if self.revoked:
            raise denied()
        token = TokenContext("id", "accessor", policies=("p",))
        return Identity(token, 0.0, (), last_use=False, limited=self.limited)

    async def acl(self, policies: tuple[str, ...], context: RequestContext) -> Acl:
        return Acl.compile([parse_policy("p", self.policy)], 0)

    async def finish(self, identity: Identity, context: RequestContext) -> None:
        raise AssertionError("no token is at its last use")


@dataclass
class Audit:
    """Keeps entries; fails when told to."""

    entries: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    broken: bool = False

    async def _write(self, kind: str, subject: Subject, outcome: Outcome) -> None:
        if self.broken:
            raise ServiceError(Kind.INTERNAL, "internal error: no audit device took the entry")
        data = outcome.data or {}
        data = msgspec.json.decode(data) if isinstance(data, msgspec.Raw) else dict(data)
        shown = subject.parameters if kind == "request" else data
        self.entries.append((kind, shown, outcome.error))

    async def request(self, subject: Subject, context: RequestContext) -> None:
        await self._write("request", subject, Outcome())

    async def response(self, subject: Subject, outcome: Outcome, context: RequestContext) -> None:
        await self._write("response", subject, outcome)

    async def pair(
        self, asked: Subject, answered: Subject, outcome: Outcome, context: RequestContext
    ) -> None:
        await self._write("request", asked, outcome)
        await self._write("response", answered, outcome)

    async def both(self, subject: Subject, outcome: Outcome, context: RequestContext) -> None:
        await self.pair(subject, subject, outcome, context)


class Mounts:
    """No request acts upon a path."""


class Rules:
    """No settings demand anything."""

    async def apply(self, call: Call, context: RequestContext) -> None:
        pass

    async def apply_lightly(self, call: Call, context: RequestContext) -> None:
        pass

    def __init__(self) -> None:
        self.turns = 0
        self.waits: list[int] = []

    async def turn(self, call: Call, context: RequestContext) -> int:
        self.turns += 1
        return self.waits.pop(0) if self.waits else 0

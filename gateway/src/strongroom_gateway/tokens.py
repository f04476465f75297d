"""Who asks, and what the policies let them do."""

import hashlib
import math
from dataclasses import dataclass

from strongroom.auth.v1 import gate_pb2
from strongroom_gateway.kept import Kept
from strongroom_runtime.addresses import Range, parse_address, parse_range
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext, TokenContext
from strongroom_runtime.errors import denied
from strongroom_runtime.etcd.prefix import PrefixView
from strongroom_runtime.handlers import Caller
from strongroom_runtime.locks import KeyedLocks
from strongroom_runtime.long_policies import acl_of, are_long
from strongroom_runtime.policy import Acl, ParsedPolicies

_GATE = "/strongroom.auth.v1.TokenGateService/"
_TOKENS_BYTES, _ACLS_BYTES = 32 << 20, 32 << 20  # some 20,000 usual ones of each
# About how many bytes one takes in memory: so many for each of the answer's, and its objects.
_TOKEN_TIMES, _TOKEN_OBJECTS = 2, 900
_ACL_TIMES, _ACL_OBJECTS = 4, 1_000


@dataclass(frozen=True, slots=True)
class Identity:
    """A token that was resolved. It ends at `ends` of the monotonic clock; 0 for never."""

    token: TokenContext
    ends: float
    networks: tuple[Range, ...]
    last_use: bool
    limited: bool = False  # each time it is resolved, one of its uses is gone

    def usable(self, address: str, now: float) -> bool:
        """Whether it may be used from an address now."""
        if self.ends and now >= self.ends:
            return False
        if not self.networks:
            return True
        try:
            client = parse_address(address)
        except ValueError:
            return False
        return any(client in network for network in self.networks)


class TokenGate:
    """Resolves tokens and policies through the auth service, and keeps what may be kept.

    Args:
        auth: the auth service.
        view: what the auth service keeps, to know when it changes.
        clock: its monotonic time is that by which tokens end here, whatever the machine's clock says.
    """

    def __init__(self, auth: Caller, view: PrefixView, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._parsed = ParsedPolicies()
        self._tokens: Kept[Identity] = Kept(view, _TOKENS_BYTES)
        self._acls: Kept[tuple[Acl, float]] = Kept(view, _ACLS_BYTES)  # until when
        self._reading = KeyedLocks()

    async def resolve(self, text: str, address: str, context: RequestContext) -> Identity:
        """Returns who a token is; where its uses are limited, this is one of them.

        Raises:
            ServiceError: DENIED.
        """
        if not 0 < len(text) <= 512:
            raise denied()
        # What is kept is found by a hash, so that memory holds no text of a token.
        name = hashlib.sha256(text.encode(errors="replace")).digest()
        known = self._tokens.get(name)
        if known is not None:
            if not known.usable(address, self._clock.monotonic()):
                raise denied()
            return known
        asked = self._clock.monotonic()
        response = await self._ask(text, address, context, linearizable=False)
        if response.cacheable and self._tokens.stale(response.dependencies, response.as_of):
            response = await self._ask(text, address, context, linearizable=True)
        caller = _caller(response, asked)
        if response.cacheable:
            size = _TOKEN_TIMES * response.ByteSize() + _TOKEN_OBJECTS
            self._tokens.keep(name, caller, list(response.dependencies), response.as_of, size)
        return caller

    async def finish(self, caller: Identity, context: RequestContext) -> None:
        """Revokes a token after its last use."""
        request = gate_pb2.FinishLastUseRequest(id=caller.token.id)
        await self._auth.call(_GATE + "FinishLastUse", request, context)

    async def acl(self, policies: tuple[str, ...], context: RequestContext) -> Acl:
        """Returns what policies allow together. Those that do not exist allow nothing."""
        known = self._known(policies)
        if known is not None:
            return known
        asked = self._clock.monotonic()
        response = await self._policies(policies, context, linearizable=False)
        if self._acls.stale(response.dependencies, response.as_of):
            response = await self._policies(policies, context, linearizable=True)
        if not are_long(response.texts.values()):
            return await self._compile(policies, response, asked)
        # It is read once for all who ask meanwhile.
        async with self._reading.hold(policies):
            return self._known(policies) or await self._compile(policies, response, asked)

    def _known(self, policies: tuple[str, ...]) -> Acl | None:
        known = self._acls.get(policies)
        if known is None:
            return None
        acl, ends = known
        return acl if self._clock.monotonic() < ends else None

    async def _compile(
        self, policies: tuple[str, ...], response: gate_pb2.ResolvePoliciesResponse, asked: float
    ) -> Acl:
        """Returns what the texts of policies say, and keeps it."""
        # Where an earlier version of the auth service answers, this machine's time has to do.
        now = response.now or self._clock.now()
        acl = await acl_of(response.texts, self._parsed, now)
        ends = asked + min(response.seconds_left or math.inf, acl.ends - now)
        size = _ACL_TIMES * response.ByteSize() + _ACL_OBJECTS
        self._acls.keep(policies, (acl, ends), list(response.dependencies), response.as_of, size)
        return acl

    async def _ask(
        self, text: str, address: str, context: RequestContext, *, linearizable: bool
    ) -> gate_pb2.ResolveTokenResponse:
        request = gate_pb2.ResolveTokenRequest(
            token=text, client_address=address, linearizable=linearizable
        )
        response: gate_pb2.ResolveTokenResponse = await self._auth.call(
            _GATE + "ResolveToken", request, context
        )
        return response

    async def _policies(
        self, names: tuple[str, ...], context: RequestContext, *, linearizable: bool
    ) -> gate_pb2.ResolvePoliciesResponse:
        request = gate_pb2.ResolvePoliciesRequest(names=names, linearizable=linearizable)
        response: gate_pb2.ResolvePoliciesResponse = await self._auth.call(
            _GATE + "ResolvePolicies", request, context
        )
        return response


def _caller(response: gate_pb2.ResolveTokenResponse, asked: float) -> Identity:
    token = TokenContext(
        id=response.id,
        accessor=response.accessor,
        display_name=response.display_name,
        policies=tuple(response.policies),
        entity_id=response.entity_id,
        root="root" in response.policies,
    )
    networks = tuple(parse_range(cidr) for cidr in response.bound_cidrs)
    return Identity(
        token,
        asked + response.seconds_left if response.seconds_left else 0.0,
        networks,
        response.last_use,
        limited=not response.cacheable,
    )

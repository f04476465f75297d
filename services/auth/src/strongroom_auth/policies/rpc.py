"""PolicyService: the contract to and from policies."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from strongroom.auth.v1 import policy_pb2 as pb
from strongroom_auth.policies.records import Change, PolicyRecord
from strongroom_auth.policies.storage import PolicyStore, clean
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.durations import parse_seconds
from strongroom_runtime.errors import denied, invalid, not_found
from strongroom_runtime.long_policies import acl_of
from strongroom_runtime.policy import Acl, ParsedPolicies, Rule
from strongroom_runtime.requests import page
from strongroom_runtime.timestamps import parse_time, timestamp

# (token text, accessor), one of both given: the names of a token's policies, None where there is no such token.
PoliciesOf = Callable[[str, str], Awaitable[tuple[str, ...] | None]]

MAX_PATHS = 1_000


class PolicyHandlers:
    """Answers requests to sys/policies/acl, sys/policy and sys/capabilities."""

    def __init__(self, policies: PolicyStore, policies_of: PoliciesOf, clock: Clock) -> None:
        self._policies = policies
        self._clock = clock
        self._policies_of = policies_of
        self._parsed = ParsedPolicies()

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: RequestContext
    ) -> pb.ListPoliciesResponse:
        names = await self._policies.names(request.prefix)
        return pb.ListPoliciesResponse(keys=page(names, request.after, request.limit))

    async def ListPoliciesDetailed(
        self, request: pb.ListPoliciesDetailedRequest, context: RequestContext
    ) -> pb.ListPoliciesDetailedResponse:
        names = page(await self._policies.names(request.prefix), request.after, request.limit)
        response = pb.ListPoliciesDetailedResponse()
        for name in names:
            record = await self._policies.get(name)
            if record is not None:
                response.keys.append(name)
                response.key_info[name].CopyFrom(pb.PolicyInfo(**_fields(name, record)))
        return response

    async def ReadPolicy(
        self, request: pb.ReadPolicyRequest, context: RequestContext
    ) -> pb.ReadPolicyResponse:
        record = await self._policies.get(request.name)
        if record is None:
            raise not_found()
        return pb.ReadPolicyResponse(**_fields(clean(request.name), record))

    async def WritePolicy(
        self, request: pb.WritePolicyRequest, context: RequestContext
    ) -> pb.WritePolicyResponse:
        now = self._clock.now()
        await self._policies.write(request.name, _given(request, request.policy, now), now)
        return pb.WritePolicyResponse()

    async def PatchPolicy(
        self, request: pb.PatchPolicyRequest, context: RequestContext
    ) -> pb.PatchPolicyResponse:
        text = request.policy if request.HasField("policy") else None
        now = self._clock.now()
        await self._policies.write(request.name, _given(request, text, now), now, patch=True)
        return pb.PatchPolicyResponse()

    async def DeletePolicy(
        self, request: pb.DeletePolicyRequest, context: RequestContext
    ) -> pb.DeletePolicyResponse:
        await self._policies.delete(request.name)
        return pb.DeletePolicyResponse()

    async def ListPoliciesOld(
        self, request: pb.ListPoliciesOldRequest, context: RequestContext
    ) -> pb.ListPoliciesOldResponse:
        names = await self._policies.names()
        return pb.ListPoliciesOldResponse(keys=names, policies=names)

    async def ReadPoliciesOld(
        self, request: pb.ReadPoliciesOldRequest, context: RequestContext
    ) -> pb.ReadPoliciesOldResponse:
        names = await self._policies.names()
        return pb.ReadPoliciesOldResponse(keys=names, policies=names)

    async def ReadPolicyOld(
        self, request: pb.ReadPolicyOldRequest, context: RequestContext
    ) -> pb.ReadPolicyOldResponse:
        record = await self._policies.get(request.name)
        if record is None:
            raise not_found()
        return pb.ReadPolicyOldResponse(rules=record.text, **_fields(clean(request.name), record))

    async def WritePolicyOld(
        self, request: pb.WritePolicyOldRequest, context: RequestContext
    ) -> pb.WritePolicyOldResponse:
        now = self._clock.now()
        await self._policies.write(request.name, _given(request, request.policy, now), now)
        return pb.WritePolicyOldResponse()

    async def DeletePolicyOld(
        self, request: pb.DeletePolicyOldRequest, context: RequestContext
    ) -> pb.DeletePolicyOldResponse:
        await self._policies.delete(request.name)
        return pb.DeletePolicyOldResponse()

    async def Capabilities(
        self, request: pb.CapabilitiesRequest, context: RequestContext
    ) -> pb.CapabilitiesResponse:
        if not request.token:
            raise invalid("missing token")
        names = await self._policies_of(request.token, "")
        if names is None:
            raise invalid("invalid token")
        return pb.CapabilitiesResponse(document=await self._judge(names, list(request.paths)))

    async def CapabilitiesAccessor(
        self, request: pb.CapabilitiesAccessorRequest, context: RequestContext
    ) -> pb.CapabilitiesAccessorResponse:
        if not request.accessor:
            raise invalid("missing accessor")
        names = await self._policies_of("", request.accessor)
        if names is None:
            raise invalid("invalid accessor")
        document = await self._judge(names, list(request.paths))
        return pb.CapabilitiesAccessorResponse(document=document)

    async def CapabilitiesSelf(
        self, request: pb.CapabilitiesSelfRequest, context: RequestContext
    ) -> pb.CapabilitiesSelfResponse:
        document = await self._judge(_names(context), list(request.paths))
        return pb.CapabilitiesSelfResponse(document=document)

    async def ResultantAcl(
        self, request: pb.ResultantAclRequest, context: RequestContext
    ) -> pb.ResultantAclResponse:
        acl = await self._acl(_names(context))
        if acl.root:
            return pb.ResultantAclResponse(root=True)
        exact: dict[str, object] = {}
        globs: dict[str, object] = {}
        for rule in acl.rules():
            wildcard = rule.is_prefix or rule.has_plus
            path = rule.path[:-1] if rule.is_prefix and not rule.has_plus else rule.path
            (globs if wildcard else exact)[path] = _described(rule)
        return pb.ResultantAclResponse(
            exact_paths=msgspec.json.encode(exact), glob_paths=msgspec.json.encode(globs)
        )

    async def _judge(self, names: tuple[str, ...], paths: list[str]) -> bytes:
        if not paths:
            raise invalid("paths must be supplied")
        if not all(paths):
            raise invalid("missing path")
        if len(paths) > MAX_PATHS:
            raise invalid(f"paths: at most {MAX_PATHS} may be given")
        acl = await self._acl(names)
        judged: dict[str, list[str]] = {path: acl.capabilities(path.lstrip("/")) for path in paths}
        if len(paths) == 1:
            judged["capabilities"] = judged[paths[0]]
        return msgspec.json.encode(judged)

    async def _acl(self, names: tuple[str, ...]) -> Acl:
        found = {name: await self._policies.text(name) for name in names}
        texts = {name: text for name, text in found.items() if text is not None}
        return await acl_of(texts, self._parsed, self._clock.now())


def _fields(name: str, record: PolicyRecord) -> dict[str, Any]:
    """Returns a policy as the fields of a message."""
    return {
        "name": name,
        "policy": record.text,
        "version": record.version,
        "modified": timestamp(record.modified),
        "cas_required": record.cas_required,
        "expiration": timestamp(record.expires),
    }


def _given(
    request: pb.WritePolicyRequest | pb.PatchPolicyRequest | pb.WritePolicyOldRequest,
    text: str | None,
    now: float,
) -> Change:
    """Returns what a request gives of a policy.

    Raises:
        ServiceError: INVALID for an end that cannot be read.
    """
    return Change(
        text,
        request.cas if request.HasField("cas") else None,
        request.cas_required if request.HasField("cas_required") else None,
        _end(request.ttl, request.expiration, now),
    )


def _end(ttl: str, expiration: str, now: float) -> float | None:
    if ttl and expiration:
        raise invalid("cannot supply both 'expiration' and 'ttl' for policies")
    if ttl:
        try:
            return now + parse_seconds(ttl)
        except ValueError as error:
            raise invalid(f"ttl: {error}") from None
    if not expiration:
        return None
    try:
        return parse_time(expiration)
    except ValueError as error:
        raise invalid(f"expiration: {error}") from None


def _described(rule: Rule) -> dict[str, object]:
    """Returns a rule as the user interface reads it: what is not set is left out."""
    described: dict[str, object] = {
        "capabilities": sorted(rule.capabilities) or ["deny"],
        "allowed_parameters": rule.allowed_parameters,
        "denied_parameters": rule.denied_parameters,
        "required_parameters": sorted(rule.required_parameters),
        "min_wrapping_ttl": rule.min_wrapping_ttl,
        "max_wrapping_ttl": rule.max_wrapping_ttl,
        "pagination_limit": rule.pagination_limit,
    }
    return {name: value for name, value in described.items() if value or name == "capabilities"}


def _names(context: RequestContext) -> tuple[str, ...]:
    if context.token is None:
        raise denied("missing client token")
    return context.token.policies

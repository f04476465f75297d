"""TokenService: the contract to and from tokens."""

from strongroom.auth.v1 import token_pb2 as pb
from strongroom_auth.policies.storage import PolicyStore
from strongroom_auth.tokens import bounds, rules
from strongroom_auth.tokens.messages import auth_message, info_message
from strongroom_auth.tokens.records import Token, TokenRole
from strongroom_auth.tokens.roles import TokenRoles, role_message, role_warnings
from strongroom_auth.tokens.tokens import Grant, Issued, MountBounds, RenewalRule, Tokens
from strongroom_runtime import lifetimes
from strongroom_runtime.context import RequestContext, TokenContext
from strongroom_runtime.errors import denied, invalid, not_found
from strongroom_runtime.requests import page

SYSTEM_TTL = 2_764_800  # 768 hours


class TokenHandlers:
    """Answers requests to auth/token."""

    def __init__(self, tokens: Tokens, roles: TokenRoles, policies: PolicyStore) -> None:
        self._tokens = tokens
        self._roles = roles
        self._policies = policies
        tokens.renewers[""] = self._renewal  # of tokens that are no login's

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: RequestContext
    ) -> pb.CreateTokenResponse:
        role = None
        if request.role_name:
            role = await self._roles.get(request.role_name)
            if role is None:
                raise invalid("unknown role")
        issued, warnings = await self._create(
            request.parameters, context, role, request.role_name, orphan=False
        )
        auth = auth_message(issued.token, issued.text, issued.token.ttl)
        return pb.CreateTokenResponse(auth=auth, warnings=warnings)

    async def CreateOrphanToken(
        self, request: pb.CreateOrphanTokenRequest, context: RequestContext
    ) -> pb.CreateOrphanTokenResponse:
        issued, warnings = await self._create(request.parameters, context, None, "", orphan=True)
        auth = auth_message(issued.token, issued.text, issued.token.ttl)
        return pb.CreateOrphanTokenResponse(auth=auth, warnings=warnings)

    async def LookupToken(
        self, request: pb.LookupTokenRequest, context: RequestContext
    ) -> pb.LookupTokenResponse:
        return pb.LookupTokenResponse(info=await self._shown(request.token, context))

    async def ReadToken(
        self, request: pb.ReadTokenRequest, context: RequestContext
    ) -> pb.ReadTokenResponse:
        return pb.ReadTokenResponse(info=await self._shown(request.token, context))

    async def LookupSelf(
        self, request: pb.LookupSelfRequest, context: RequestContext
    ) -> pb.LookupSelfResponse:
        return pb.LookupSelfResponse(info=await self._own(context))

    async def LookupSelfByUpdate(
        self, request: pb.LookupSelfByUpdateRequest, context: RequestContext
    ) -> pb.LookupSelfByUpdateResponse:
        return pb.LookupSelfByUpdateResponse(info=await self._own(context))

    async def LookupAccessor(
        self, request: pb.LookupAccessorRequest, context: RequestContext
    ) -> pb.LookupAccessorResponse:
        token = await self._by_accessor(request.accessor)
        return pb.LookupAccessorResponse(info=info_message(token, self._tokens.now()))

    async def RenewToken(
        self, request: pb.RenewTokenRequest, context: RequestContext
    ) -> pb.RenewTokenResponse:
        if not request.token:
            raise invalid("missing token")
        token = await self._tokens.find(self._tokens.records.identify(request.token))
        if token is None:
            raise invalid("token not found")
        renewed = await self._tokens.renew(token.id, request.increment, _bounds(context))
        auth = auth_message(renewed.token, request.token, renewed.ttl)
        return pb.RenewTokenResponse(auth=auth, warnings=renewed.warnings)

    async def RenewSelf(
        self, request: pb.RenewSelfRequest, context: RequestContext
    ) -> pb.RenewSelfResponse:
        renewed = await self._tokens.renew(_caller(context).id, request.increment, _bounds(context))
        # The gateway knows the text, which this service does not keep.
        auth = auth_message(renewed.token, request.token, renewed.ttl)
        return pb.RenewSelfResponse(auth=auth, warnings=renewed.warnings)

    async def RenewAccessor(
        self, request: pb.RenewAccessorRequest, context: RequestContext
    ) -> pb.RenewAccessorResponse:
        token = await self._by_accessor(request.accessor)
        renewed = await self._tokens.renew(token.id, request.increment, _bounds(context))
        auth = auth_message(renewed.token, "", renewed.ttl)
        return pb.RenewAccessorResponse(auth=auth, warnings=renewed.warnings)

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: RequestContext
    ) -> pb.RevokeTokenResponse:
        if not request.token:
            raise invalid("missing token")
        await self._tokens.revoke(self._tokens.records.identify(request.token))
        return pb.RevokeTokenResponse()

    async def RevokeSelf(
        self, request: pb.RevokeSelfRequest, context: RequestContext
    ) -> pb.RevokeSelfResponse:
        await self._tokens.revoke(_caller(context).id)
        return pb.RevokeSelfResponse()

    async def RevokeAccessor(
        self, request: pb.RevokeAccessorRequest, context: RequestContext
    ) -> pb.RevokeAccessorResponse:
        if not request.accessor:
            raise invalid("missing accessor")
        token_id = await self._tokens.records.by_accessor(request.accessor)
        if await self._tokens.find(token_id) is None:
            # Not an error: who revokes twice, or too late, has what it wanted.
            return pb.RevokeAccessorResponse(warnings=["No token found with this accessor"])
        await self._tokens.revoke(token_id)
        return pb.RevokeAccessorResponse()

    async def RevokeOrphan(
        self, request: pb.RevokeOrphanRequest, context: RequestContext
    ) -> pb.RevokeOrphanResponse:
        token_id = self._tokens.records.identify(request.token)
        if not await self._tokens.revoke(token_id, alone=True):
            raise invalid("token to revoke not found")
        return pb.RevokeOrphanResponse()

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: RequestContext
    ) -> pb.CountTokensResponse:
        total = await self._tokens.records.count()
        counters = pb.TokenCounters(service_tokens=pb.TokenCounter(total=total))
        return pb.CountTokensResponse(counters=counters)

    async def CountEntities(
        self, request: pb.CountEntitiesRequest, context: RequestContext
    ) -> pb.CountEntitiesResponse:
        counters = pb.EntityCounters(entities=pb.EntityCounter(total=0))
        return pb.CountEntitiesResponse(counters=counters)

    async def ListAccessors(
        self, request: pb.ListAccessorsRequest, context: RequestContext
    ) -> pb.ListAccessorsResponse:
        names = await self._tokens.records.accessors()
        return pb.ListAccessorsResponse(keys=page(names, request.after, request.limit))

    async def TidyTokens(
        self, request: pb.TidyTokensRequest, context: RequestContext
    ) -> pb.TidyTokensResponse:
        note = "Tokens are tidied all the time; nothing was started."
        return pb.TidyTokensResponse(warnings=[note])

    async def ListTokenRoles(
        self, request: pb.ListTokenRolesRequest, context: RequestContext
    ) -> pb.ListTokenRolesResponse:
        names = await self._roles.names()
        return pb.ListTokenRolesResponse(keys=page(names, request.after, request.limit))

    async def ReadTokenRole(
        self, request: pb.ReadTokenRoleRequest, context: RequestContext
    ) -> pb.ReadTokenRoleResponse:
        role = await self._roles.get(request.role_name)
        if role is None:
            raise not_found()
        return pb.ReadTokenRoleResponse(role=role_message(request.role_name, role))

    async def WriteTokenRole(
        self, request: pb.WriteTokenRoleRequest, context: RequestContext
    ) -> pb.WriteTokenRoleResponse:
        role = await self._roles.write(request.role_name, request.role, context)
        said = role_warnings(request.role, role, _ttls(context)[1])
        return pb.WriteTokenRoleResponse(warnings=said)

    async def DeleteTokenRole(
        self, request: pb.DeleteTokenRoleRequest, context: RequestContext
    ) -> pb.DeleteTokenRoleResponse:
        await self._roles.delete(request.role_name)
        return pb.DeleteTokenRoleResponse()

    async def _create(
        self,
        parameters: pb.TokenParameters,
        context: RequestContext,
        role: TokenRole | None,
        role_name: str,
        *,
        orphan: bool,
    ) -> tuple[Issued, list[str]]:
        caller = _caller(context)
        parent = await self._by_id(caller.id)
        if parent.uses:
            raise invalid("restricted use token cannot generate child tokens")
        privileged = caller.root or context.sudo
        _check_given(parameters)
        _check_privileged(parameters, role, privileged=privileged)
        policies = _policies(parameters, parent, role, sudo=context.sudo)
        path = "auth/token/create-orphan" if orphan else "auth/token/create"
        orphan = orphan or (parameters.no_parent if role is None else role.orphan)
        span = _span(parameters, role, context, self._tokens.now(), root="root" in policies)
        if not span.ttl and parent.ttl:
            raise invalid("expiring root tokens cannot create non-expiring root tokens")
        suffix = f"/{role.path_suffix}" if role is not None and role.path_suffix else ""
        grant = Grant(
            policies=policies,
            path=f"{path}{'/' + role_name if role_name else ''}{suffix}",
            display_name=rules.display_name(parameters.display_name),
            ttl=span.ttl,
            explicit_max=_explicit_max(parameters, role),
            period=_period(parameters, role),
            uses=lifetimes.least(parameters.num_uses, role.uses if role else 0),
            renewable=_renewable(parameters, role),
            meta=dict(parameters.meta),
            cidrs=_cidrs(role, context, parent, orphan=orphan),
            role=role_name,
            text=parameters.id,
        )
        issued = await self._tokens.create(grant, "" if orphan else parent.id)
        missing = [name for name in policies if await self._policies.text(name) is None]
        said = [*_lesser(parameters, role), *span.warnings]
        return issued, [*said, *(f'Policy "{name}" does not exist' for name in missing)]

    async def _renewal(self, token: Token) -> RenewalRule:
        """Without an increment a token gets what it was given last, as in Vault."""
        if not token.role:
            return RenewalRule(token.granted, period=token.period)
        role = await self._roles.get(token.role)
        if role is None:
            raise invalid("the role of this token does not exist any more")
        explicit_max = lifetimes.least(token.explicit_max, role.explicit_max)
        return RenewalRule(token.granted, period=role.period, explicit_max=explicit_max)

    async def _shown(self, text: str, context: RequestContext) -> pb.TokenInfo:
        if not text:  # the caller's own, whose text the gateway knows
            return await self._own(context)
        return info_message(await self._by_text(text), self._tokens.now(), text)

    async def _own(self, context: RequestContext) -> pb.TokenInfo:
        # The gateway has let it in; if that was its last use, it is no longer valid for anything else.
        found = await self._tokens.records.get(_caller(context).id)
        if found is None:
            raise denied("bad token")
        return info_message(found[0], self._tokens.now())

    async def _by_text(self, text: str) -> Token:
        return await self._by_id(self._tokens.records.identify(text))

    async def _by_id(self, token_id: str) -> Token:
        token = await self._tokens.find(token_id)
        if token is None:
            raise denied("bad token")
        return token

    async def _by_accessor(self, accessor: str) -> Token:
        if not accessor:
            raise invalid("missing accessor")
        token = await self._tokens.find(await self._tokens.records.by_accessor(accessor))
        if token is None:
            raise invalid("invalid accessor")
        return token


def _cidrs(
    role: TokenRole | None, context: RequestContext, parent: Token, *, orphan: bool
) -> tuple[str, ...]:
    """Returns where a new token may be used from: as its role says, and without one as its parent."""
    if role is not None:
        return rules.bound_to(context.client_address, role.cidrs, strict=role.strict_ip)
    return () if orphan else parent.cidrs


def _caller(context: RequestContext) -> TokenContext:
    if context.token is None:
        raise denied("missing client token")
    return context.token


def _ttls(context: RequestContext) -> tuple[int, int]:
    """Returns the usual and the longest time to live of the mount that was asked."""
    if context.mount is None:
        return SYSTEM_TTL, SYSTEM_TTL
    return context.mount.default_lease_ttl, context.mount.max_lease_ttl


def _bounds(context: RequestContext) -> MountBounds:
    """Returns the bounds of the mount that comes with a renewal: the token's own, where a login made it."""
    usual, longest = _ttls(context)
    mount = context.mount
    login = mount is not None and mount.type != "token"
    return MountBounds(usual, longest, mount.uuid if mount is not None and login else "")


def _check_given(parameters: pb.TokenParameters) -> None:
    if parameters.type not in ("", "service"):
        raise invalid("type: only service tokens are supported")
    if "." in parameters.id:
        raise invalid("id: must not hold a dot, by which tokens that were made here are known")
    if parameters.entity_alias:
        raise invalid("entity_alias: entities are not supported")
    if min(parameters.ttl, parameters.explicit_max_ttl, parameters.period) < 0:
        raise invalid("ttl, explicit_max_ttl and period must not be negative")
    if parameters.num_uses < 0:
        raise invalid("num_uses: must not be negative")
    bounds.check_names(parameters.display_name, parameters.id)
    bounds.check_policies("policies", parameters.policies)
    bounds.check_meta("meta", parameters.meta)


def _check_privileged(
    parameters: pb.TokenParameters, role: TokenRole | None, *, privileged: bool
) -> None:
    if privileged:
        return
    for given, what in (
        (parameters.id, "specify token id"),
        (role is None and parameters.no_parent, "create orphan token"),
        (parameters.period, "create periodic token"),
    ):
        if given:
            raise invalid(f"root or sudo privileges required to {what}")


def _policies(
    parameters: pb.TokenParameters, parent: Token, role: TokenRole | None, *, sudo: bool
) -> tuple[str, ...]:
    # Blank names alone are no policies, and not those of the parent: who fills in a template gave a list.
    wanted = rules.clean_policies(parameters.policies) if parameters.policies else None
    free = parent.root or sudo
    if role is not None:
        found = _policies_of_role(role, parameters, wanted, parent, free=free)
    else:
        without = parameters.no_default_policy
        found = rules.inherited(wanted, parent.policies, free=free, without=without)
        if "root" in found:
            return ("root",)  # others beside it would say nothing
    if parameters.no_default_policy:
        found = tuple(name for name in found if name != "default")
    return found


def _policies_of_role(
    role: TokenRole,
    parameters: pb.TokenParameters,
    wanted: tuple[str, ...] | None,
    parent: Token,
    *,
    free: bool,
) -> tuple[str, ...]:
    """Returns the policies that a role lets a token have.

    A role that limits them adds `default` unless it forbids it; others leave it to the parent.
    """
    without = parameters.no_default_policy or role.no_default or rules.role_forbids("default", role)
    own = tuple(p for p in parent.policies if p != "root")
    if not rules.limits_policies(role):
        found = rules.inherited(wanted, own, free=free, without=without)
    elif role.allowed or role.allowed_globs:
        found = rules.with_default(role.allowed if wanted is None else wanted, without)
    else:
        wanted = own if wanted is None else wanted
        rules.check_subset(wanted, own, free=free)
        found = rules.with_default(wanted, without)
    for name in found:
        added = name == "default" and not without
        if "root" in found or not (added or rules.role_allows(name, role)):
            raise invalid("token policies must be subset of the role's allowed policies")
    return found


def _span(
    parameters: pb.TokenParameters,
    role: TokenRole | None,
    context: RequestContext,
    now: float,
    *,
    root: bool,
) -> lifetimes.Span:
    usual, longest = _ttls(context)
    period = _period(parameters, role)
    explicit = _explicit_max(parameters, role)
    if root and not (parameters.ttl or period):
        return lifetimes.Span(explicit)  # 0: root tokens live until they are revoked
    return lifetimes.span(
        now=now,
        created=now,
        asked=parameters.ttl,
        usual=usual,
        longest=longest,
        period=period,
        explicit_max=explicit,
    )


def _explicit_max(parameters: pb.TokenParameters, role: TokenRole | None) -> int:
    return lifetimes.least(parameters.explicit_max_ttl, role.explicit_max if role else 0)


def _period(parameters: pb.TokenParameters, role: TokenRole | None) -> int:
    return lifetimes.least(parameters.period, role.period if role else 0)


def _lesser(parameters: pb.TokenParameters, role: TokenRole | None) -> list[str]:
    """Returns what to say of bounds that both the caller and the role gave."""
    if role is None:
        return []
    both = (
        ("Explicit max TTL", parameters.explicit_max_ttl, role.explicit_max),
        ("Period", parameters.period, role.period),
    )
    return [
        f"{what} specified both during creation call and in role; using the lesser value of {min(asked, own)} seconds"
        for what, asked, own in both
        if asked and own
    ]


def _renewable(parameters: pb.TokenParameters, role: TokenRole | None) -> bool:
    asked = parameters.renewable if parameters.HasField("renewable") else True
    return asked and (role is None or role.renewable)

"""TokenGateService: what other services ask about tokens."""

from collections.abc import Awaitable, Callable, Mapping

from strongroom.auth.v1 import gate_pb2 as pb
from strongroom_auth.lockout import Lockouts
from strongroom_auth.policies.storage import PolicyStore
from strongroom_auth.tokens.records import Token
from strongroom_auth.tokens.tokens import Tokens
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import denied, invalid, not_found
from strongroom_runtime.mount_marks import Moved, mark_gone, mark_moved
from strongroom_runtime.requests import mount_of
from strongroom_runtime.storage import Store

DropMountData = Callable[[str], Awaitable[None]]
# (uuid of a mount, role id): the name of the role; empty where there is none.
RoleOf = Callable[[str, str], Awaitable[str]]


class TokenGateHandlers:
    """Answers the gateway and the seal service."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        policies: PolicyStore,
        drop_data: DropMountData,
        role_of: RoleOf,
        lockouts: Mapping[str, Lockouts],
    ) -> None:
        self._lockouts = lockouts
        self._role_of = role_of
        self._store = store
        self._tokens = tokens
        self._policies = policies
        self._drop_data = drop_data

    async def ResolveToken(
        self, request: pb.ResolveTokenRequest, context: RequestContext
    ) -> pb.ResolveTokenResponse:
        reads = self._store.reads(linearizable=request.linearizable)
        token = await self._tokens.resolve(request.token, request.client_address, reads)
        if token is None:
            raise denied()
        last = False
        if token.uses:
            used = await self._tokens.use(request.token, request.client_address)
            if used is None:
                raise denied()
            token, last = used
        response = _entry(token)
        if token.expires:
            # Never 0: it has not ended yet, or it would not have been found.
            response.seconds_left = max(token.expires - self._tokens.now(), 1e-6)
        response.last_use = last
        response.cacheable = not (token.uses or last)
        response.dependencies.extend(reads.dependencies)
        response.as_of = reads.as_of
        return response

    async def FinishLastUse(
        self, request: pb.FinishLastUseRequest, context: RequestContext
    ) -> pb.FinishLastUseResponse:
        await self._tokens.revoke(request.id)
        return pb.FinishLastUseResponse()

    async def CheckToken(
        self, request: pb.CheckTokenRequest, context: RequestContext
    ) -> pb.CheckTokenResponse:
        reads = self._store.reads(linearizable=True)
        if await self._tokens.records.valid(request.id, self._tokens.now(), reads) is not None:
            return pb.CheckTokenResponse(alive=True)
        found = await self._tokens.records.get(request.id, reads)
        return pb.CheckTokenResponse(last_use=found is not None and found[0].used_up)

    async def FindMountOfToken(
        self, request: pb.FindMountOfTokenRequest, context: RequestContext
    ) -> pb.FindMountOfTokenResponse:
        token = await self._tokens.named(request.id, request.token, request.accessor)
        return pb.FindMountOfTokenResponse(mount_uuid=token.mount if token is not None else "")

    async def ResolveLoginRole(
        self, request: pb.ResolveLoginRoleRequest, context: RequestContext
    ) -> pb.ResolveLoginRoleResponse:
        mount = context.mount.uuid if context.mount is not None else ""
        name = await self._role_of(mount, request.role_id)
        if not name:
            raise not_found()
        return pb.ResolveLoginRoleResponse(role_name=name)

    async def ResolvePolicies(
        self, request: pb.ResolvePoliciesRequest, context: RequestContext
    ) -> pb.ResolvePoliciesResponse:
        reads = self._store.reads(linearizable=request.linearizable)
        response = pb.ResolvePoliciesResponse(now=self._tokens.now())
        ends: list[float] = []
        for name in request.names:
            record = await self._policies.get(name, reads)
            if record is not None:
                response.texts[name] = record.text
                ends += [record.expires] if record.expires else []
        if ends:
            # It may have ended just now; 0 would be never.
            response.seconds_left = max(min(ends) - response.now, 1e-6)
        response.dependencies.extend(reads.dependencies)
        response.as_of = reads.as_of
        return response

    async def AdoptRootToken(
        self, request: pb.AdoptRootTokenRequest, context: RequestContext
    ) -> pb.AdoptRootTokenResponse:
        if not request.token:
            raise invalid("token: must not be empty")
        await self._tokens.adopt_root(request.token)
        return pb.AdoptRootTokenResponse()

    async def ListLockedNames(
        self, request: pb.ListLockedNamesRequest, context: RequestContext
    ) -> pb.ListLockedNamesResponse:
        mount = mount_of(context)
        names = await self._lockouts[mount.type].names(mount, self._tokens.now())
        return pb.ListLockedNamesResponse(names=names)

    async def UnlockName(
        self, request: pb.UnlockNameRequest, context: RequestContext
    ) -> pb.UnlockNameResponse:
        mount = mount_of(context)
        await self._lockouts[mount.type].forget(mount, request.name)
        return pb.UnlockNameResponse()

    async def EndMovedTokens(
        self, request: pb.EndMovedTokensRequest, context: RequestContext
    ) -> pb.EndMovedTokensResponse:
        if not request.mount_uuid or not request.path:
            raise invalid("mount_uuid and path: must not be empty")
        # From here on no login makes a token under another path: each expects this record as it was.
        moved = Moved(request.path, request.moves)
        if not await mark_moved(self._store, request.mount_uuid, moved):
            return pb.EndMovedTokensResponse()  # it was moved again, or disabled: that is seen to
        records, after = self._tokens.records, ""
        while token_ids := await records.of_mount(request.mount_uuid, after):
            for token_id in token_ids:
                found = await records.get(token_id)
                if found is not None and not found[0].path.startswith(request.path):
                    await self._tokens.revoke(token_id)
            after = token_ids[-1]
        return pb.EndMovedTokensResponse()

    async def DropMount(
        self, request: pb.DropMountRequest, context: RequestContext
    ) -> pb.DropMountResponse:
        if not request.mount_uuid:
            raise invalid("mount_uuid: must not be empty")
        records = self._tokens.records
        # From here on nothing is made for it. Users and roles first: a login that is under way makes no token without
        # its own. All of this is repeated until it is done to its end.
        await mark_gone(self._store, request.mount_uuid)
        await self._drop_data(request.mount_uuid)
        while token_ids := await records.of_mount(request.mount_uuid):
            for token_id in token_ids:
                await self._tokens.revoke(token_id)
                await records.forget_index(token_id, mount=request.mount_uuid)
        return pb.DropMountResponse()


def _entry(token: Token) -> pb.ResolveTokenResponse:
    return pb.ResolveTokenResponse(
        id=token.id,
        accessor=token.accessor,
        policies=token.policies,
        display_name=token.display_name,
        entity_id=token.entity,
        expire_time=token.expires,
        bound_cidrs=token.cidrs,
        type="service",
        path=token.path,
        metadata=token.meta,
        orphan=not token.ancestors,
        num_uses=token.uses,
        creation_ttl=token.ttl,
    )

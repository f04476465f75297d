"""TokenLeaseService: tokens as leases."""

import asyncio

from strongroom.auth.v1 import token_lease_pb2 as pb
from strongroom_auth.tokens.tokens import Tokens
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import not_found
from strongroom_runtime.timestamps import timestamp


class TokenLeaseHandlers:
    """Answers the service that has sys/leases."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def LookupTokenLease(
        self, request: pb.LookupTokenLeaseRequest, context: RequestContext
    ) -> pb.LookupTokenLeaseResponse:
        path, token_id = _parts(request.lease_id)
        token = await self._tokens.find(token_id)
        if token is None or token.path != path:
            raise not_found()
        left = round(token.expires - self._tokens.now()) if token.expires else 0
        return pb.LookupTokenLeaseResponse(
            token_id=token.id,
            issue_time=timestamp(token.created),
            expire_time=timestamp(token.expires),
            last_renewal=timestamp(token.renewed),
            renewable=token.renewable,
            ttl=max(0, left),
            path=token.path,
        )

    async def ListTokenLeases(
        self, request: pb.ListTokenLeasesRequest, context: RequestContext
    ) -> pb.ListTokenLeasesResponse:
        some = await self._page(request)
        if some is not None:
            return pb.ListTokenLeasesResponse(keys=some, paged=True)
        names = await self._tokens.records.lease_names(request.prefix)
        return pb.ListTokenLeasesResponse(
            keys=sorted(f"{name}/" if folder else f"h{name}" for name, folder in names)
        )

    async def _page(self, request: pb.ListTokenLeasesRequest) -> list[str] | None:
        """Returns a page of the names where ids of tokens alone lie below a prefix; None where folders do, too."""
        if request.after and not request.after.startswith("h"):
            return None
        after = request.after.removeprefix("h")
        page = await self._tokens.records.lease_page(request.prefix, after, request.limit)
        return [f"h{name}" for name in page] if page is not None else None

    async def RevokeTokenLease(
        self, request: pb.RevokeTokenLeaseRequest, context: RequestContext
    ) -> pb.RevokeTokenLeaseResponse:
        path, token_id = _parts(request.lease_id)
        found = await self._tokens.records.get(token_id) if token_id else None
        if found is not None and found[0].path == path:
            await self._tokens.revoke(token_id)
        return pb.RevokeTokenLeaseResponse()

    async def RevokeTokenLeases(
        self, request: pb.RevokeTokenLeasesRequest, context: RequestContext
    ) -> pb.RevokeTokenLeasesResponse:
        records, after = self._tokens.records, None
        while paths := await records.leases_below(request.prefix, after):
            await asyncio.gather(*(self._tokens.revoke(str(path[-1])) for path in paths))
            after = paths[-1]
        return pb.RevokeTokenLeasesResponse()


def _parts(lease_id: str) -> tuple[str, str]:
    """Returns the path and the storage identity in a lease id; an identity that cannot be one is empty."""
    path, _, name = lease_id.strip("/").rpartition("/")
    token_id = name.removeprefix("h")
    valid = name.startswith("h") and token_id.isascii() and token_id.isalnum()
    return path, token_id if valid else ""

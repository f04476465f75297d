"""Leases of tokens: the auth service has them, sys/leases shows and ends them beside its own."""

import uuid
from typing import Any

from strongroom.auth.v1 import token_lease_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import Caller

_SERVICE = "/strongroom.auth.v1.TokenLeaseService/"


def of_tokens(path: str) -> bool:
    """Whether a lease id, or a prefix of some, is of tokens."""
    return path.strip("/").partition("/")[0] == "auth"


class TokenLeases:
    """Asks the auth service. Every method raises UNAVAILABLE where it cannot be reached."""

    def __init__(self, auth: Caller) -> None:
        self._auth = auth

    async def find(self, lease_id: str) -> pb.LookupTokenLeaseResponse | None:
        """Returns what is known of the lease of a token that can be used."""
        try:
            answer = await self._call(pb.LookupTokenLeaseRequest(lease_id=lease_id))
        except ServiceError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise
        return answer  # type: ignore[no-any-return]

    async def names(self, prefix: str, after: str = "", limit: int = 0) -> tuple[list[str], bool]:
        """Returns the next names of ids below a prefix, and whether they are just the page that was asked for.

        Folders end with a slash.
        """
        request = pb.ListTokenLeasesRequest(prefix=prefix, after=after, limit=limit)
        answer = await self._call(request)
        return list(answer.keys), answer.paged

    async def revoke(self, lease_id: str) -> None:
        """Revokes a token, and what descends from it."""
        await self._call(pb.RevokeTokenLeaseRequest(lease_id=lease_id))

    async def revoke_below(self, prefix: str) -> None:
        """Revokes the tokens whose lease ids begin with a prefix."""
        await self._call(pb.RevokeTokenLeasesRequest(prefix=prefix))

    async def _call(self, request: Any) -> Any:
        method = type(request).DESCRIPTOR.name.removesuffix("Request")
        context = RequestContext(str(uuid.uuid4()), caller="dbcreds")
        return await self._auth.call(_SERVICE + method, request, context)

"""Finds what was kept for a token by a request that was still under way when the token ended.

The cleaning removes what there is; what comes after it nobody could read, and nobody would remove.
"""

import uuid

from strongroom.kv.v1 import cubbyhole_pb2
from strongroom_auth.tokens.cleanup import Listener
from strongroom_auth.tokens.storage import TokenStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import Caller

_LIST = "/strongroom.kv.v1.KvLifecycleService/ListTokensWithData"


class Cubbyholes:
    """Looks for cubbyholes of tokens that are no more.

    Args:
        records: all tokens.
        kv: the service that keeps cubbyholes.
        drop: removes one.
    """

    def __init__(self, records: TokenStore, kv: Caller, drop: Listener) -> None:
        self._records = records
        self._kv = kv
        self._drop = drop

    async def sweep(self, now: float) -> None:
        """Removes those. May be repeated, by any replica."""
        after = ""
        while token_ids := await self._page(after):
            for token_id in token_ids:
                # A token is there before anything belongs to it.
                found = await self._records.get(token_id)
                if found is None or found[0].severed:
                    await self._drop(token_id)
            after = token_ids[-1]

    async def _page(self, after: str) -> list[str]:
        request = cubbyhole_pb2.ListTokensWithDataRequest(after=after)
        context = RequestContext(str(uuid.uuid4()), caller="auth")
        return list((await self._kv.call(_LIST, request, context)).token_ids)

"""Asks what a token may do with paths in the spelling in which requests to them are judged.

Which names are the same in capitals stands in the contract, and which mount a path lies in is known here alone. The
auth service judges paths as they are spelled, so it is asked about those that requests would have; whoever asked gets
the answer under the paths that were sent.
"""

from collections.abc import Coroutine
from typing import Any

import msgspec

from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.forwarding import Forwarding
from strongroom_gateway.http.paths import ABSOLUTE
from strongroom_gateway.mounts.table import MountTable
from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import StreamCaller

_METHODS = frozenset(
    f"/strongroom.auth.v1.PolicyService/{name}"
    for name in ("Capabilities", "CapabilitiesAccessor", "CapabilitiesSelf")
)
_MOST_PATHS = 1_000  # the auth service refuses more


class WithJudgedPaths(Forwarding):
    """The auth service, asked about paths as policies judge requests to them.

    Args:
        auth: the auth service.
        routes: the methods, which say what names paths have.
        mounts: the mounts, which say what kind of path one is.
    """

    def __init__(self, auth: StreamCaller, routes: RouteTable, mounts: MountTable) -> None:
        super().__init__(auth)
        self._routes = routes
        self._mounts = mounts

    def call(self, method: str, request: Any, context: RequestContext) -> Coroutine[Any, Any, Any]:
        """Returns the response message."""
        if method in _METHODS:
            return self._capabilities(method, request, context)
        return super().call(method, request, context)

    async def _capabilities(self, method: str, request: Any, context: RequestContext) -> Any:
        given = list(request.paths[: _MOST_PATHS + 1])
        if len(given) > _MOST_PATHS:
            return await self._service.call(method, request, context)
        judged = [await self._judged(path) for path in given]
        if judged == given:
            return await self._service.call(method, request, context)
        asked = type(request)()
        asked.CopyFrom(request)
        asked.paths[:] = judged
        response = await self._service.call(method, asked, context)
        document: dict[str, list[str]] = msgspec.json.decode(response.document)
        answer = {path: document[name] for path, name in zip(given, judged, strict=True)}
        if len(given) == 1:
            answer["capabilities"] = document["capabilities"]
        return type(response)(document=msgspec.json.encode(answer))

    async def _judged(self, path: str) -> str:
        """Returns a path, which may have slashes around it, in the spelling in which a request to it is judged."""
        bare = path.strip("/")
        if not bare:
            return path
        place, kind = "", None
        if not bare.startswith(ABSOLUTE):
            found = (await self._mounts.current()).find(bare + "/")
            if found is None or bare + "/" == found[0].path:
                return path
            place, kind = found[0].path, found[0].kind
        respelled = place + self._routes.respelled(kind, bare[len(place) :])
        return path.replace(bare, respelled, 1)

"""How older clients open a wrapped answer: they read `cubbyhole/response` with its token."""

from strongroom_gateway.call import Call
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.wrapping.storage import WrapStore

_PATH = "cubbyhole/response"
_UNWRAP = "/strongroom.sys.v1.WrappingService/UnwrapAsText"


class OlderUnwrap:
    """Tells those reads from others, which are of the caller's own cubbyhole.

    Args:
        routes: the methods.
        wraps: where wrapped answers are kept.
    """

    def __init__(self, routes: RouteTable, wraps: WrapStore) -> None:
        self._routes = routes
        self._wraps = wraps

    async def lead(self, call: Call) -> None:
        """Leads a request that opens an answer to the method that does; leaves others as they are.

        Raises:
            ServiceError: UNAVAILABLE, SEALED.
        """
        if call.path != _PATH or call.operation != "read":
            return
        if await self._wraps.find(call.token_text) is not None:
            call.spec = self._routes.methods[_UNWRAP]
            call.message = call.spec.request()

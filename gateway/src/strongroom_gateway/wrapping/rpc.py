"""WrappingService: the contract to and from wrapped answers."""

import asyncio

from strongroom.sys.v1 import wrapping_pb2 as pb
from strongroom_gateway.wrapping.storage import Wrapped, WrapStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.documents import refuse_repeated_keys
from strongroom_runtime.errors import Kind, ServiceError, denied, invalid
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.timestamps import timestamp

_SWEEP_SECONDS = 5.0
_OLD_WAY = "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses."


def wrap_info(text: str, wrapped: Wrapped, wrapped_accessor: str = "") -> pb.WrapInfo:
    """Returns how a wrapped answer is opened."""
    info = pb.WrapInfo(
        token=text,
        accessor=wrapped.accessor,
        ttl=wrapped.ttl,
        creation_time=timestamp(wrapped.created),
        creation_path=wrapped.path,
    )
    if wrapped_accessor:
        info.wrapped_accessor = wrapped_accessor
    return info


class WrappingHandlers:
    """Answers requests to sys/wrapping."""

    def __init__(self, wraps: WrapStore) -> None:
        self._wraps = wraps

    async def Wrap(self, request: pb.WrapRequest, context: RequestContext) -> pb.WrapResponse:
        # What wraps it is the gateway's pipeline, as for every other answer.
        document = request.document or b"{}"
        refuse_repeated_keys(document, "body")
        return pb.WrapResponse(document=document)

    async def Unwrap(self, request: pb.UnwrapRequest, context: RequestContext) -> pb.UnwrapResponse:
        wrapped = await self._wraps.open(_token(request.token))
        return pb.UnwrapResponse(document=wrapped.body)

    async def UnwrapAsText(
        self, request: pb.UnwrapAsTextRequest, context: RequestContext
    ) -> pb.UnwrapAsTextResponse:
        try:
            wrapped = await self._wraps.open(_token(request.token))
        except ServiceError as error:
            # It is a token that this path does not know, as those are that have ended.
            raise denied() if error.kind is Kind.INVALID else error from None
        return pb.UnwrapAsTextResponse(response=wrapped.body.decode(), warnings=[_OLD_WAY])

    async def LookupWrapping(
        self, request: pb.LookupWrappingRequest, context: RequestContext
    ) -> pb.LookupWrappingResponse:
        wrapped = await self._wraps.look(_token(request.token))
        return pb.LookupWrappingResponse(
            creation_path=wrapped.path,
            creation_time=timestamp(wrapped.created),
            creation_ttl=wrapped.ttl,
        )

    async def LookupOwnWrapping(
        self, request: pb.LookupOwnWrappingRequest, context: RequestContext
    ) -> pb.LookupOwnWrappingResponse:
        wrapped = await self._wraps.look(_token(request.token))
        return pb.LookupOwnWrappingResponse(
            creation_path=wrapped.path,
            creation_time=timestamp(wrapped.created),
            creation_ttl=wrapped.ttl,
        )

    async def Rewrap(self, request: pb.RewrapRequest, context: RequestContext) -> pb.RewrapResponse:
        text, wrapped = await self._wraps.move(_token(request.token))
        return pb.RewrapResponse(wrap_info=wrap_info(text, wrapped))

    async def sweep(self) -> None:
        """Removes what can no longer be opened. Runs until cancelled."""
        work = Repeated("the removal of wrapped answers")
        while True:
            busy = False
            with work.turn():
                busy = await self._wraps.sweep()
            await asyncio.sleep(0 if busy else _SWEEP_SECONDS)


def _token(text: str) -> str:
    if not text:
        raise invalid("missing 'token' parameter and the request came with no token")
    return text

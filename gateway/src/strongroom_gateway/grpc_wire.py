"""From a gRPC call to the pipeline: the same decisions, paths and entries as over HTTP.

The token is in the metadata `x-vault-token`, or in `authorization` as `Bearer …`; `x-vault-wrap-ttl` asks for a
wrapped answer. What HTTP has in its envelope and headers comes as trailing metadata: `strongroom-request-id`,
`strongroom-warning` (repeated), `x-ratelimit-…`, and `strongroom-wrap-info-bin`, a serialised
`strongroom.sys.v1.WrapInfo`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from strongroom.sys.v1 import wrapping_pb2
from strongroom_gateway.call import Call, names, trace_of, wrap_ttl_of
from strongroom_gateway.contract.routes import MethodSpec, RouteTable, path_for, respelled
from strongroom_gateway.grpc_messages import Read, checked, reader
from strongroom_gateway.http.paths import PREFIX, canonical, check_folder, check_namespace
from strongroom_gateway.http.wire import MAX_SECONDS
from strongroom_gateway.mounts.table import ACTIVE, MountTable
from strongroom_gateway.pipeline import Answer, Pipeline
from strongroom_gateway.streams import Streams
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import MountContext
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import Shape
from strongroom_runtime.link.server import abort
from strongroom_runtime.transport.leaving import OpenStreams, Patience

# Of streams both ways: the largest message, of which some are held in memory at once, and how long a client may take
# to say what the stream is for.
_MESSAGE_BYTES = 4 << 20
_FIRST_SECONDS = 60.0
# Of warnings as metadata: how much there may be, since clients take 8 KiB in all where they do not say otherwise, and
# what HTTP/2 counts for one beside its text (RFC 9113, section 6.5.2).
_WARNINGS_BYTES, _EACH_BYTES = 6_000, 32 + len("strongroom-warning")
# How long a process that leaves waits for requests whose clients may have left before it.
_LEFT_SECONDS = 5.0

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class GrpcWire(grpc.GenericRpcHandler):
    """Serves every public method of the contracts."""

    def __init__(
        self,
        routes: RouteTable,
        mounts: MountTable,
        pipeline: Pipeline,
        streams: Streams,
        clock: Clock,
    ) -> None:
        self._routes = routes
        self._mounts = mounts
        self._pipeline = pipeline
        self._streams = streams
        self._clock = clock
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._watches = OpenStreams()
        self._exchanges = OpenStreams()
        self._handling: set[asyncio.Future[Answer]] = set()

    async def drain(self, patience: Patience) -> None:
        """Ends watches, which begin anew elsewhere; returns once the other streams have ended, or were ended.

        New calls are refused by the server in front.
        """
        self._watches.end()
        await patience.wait_for(self._exchanges)
        if self._handling:
            await asyncio.wait(self._handling, timeout=_LEFT_SECONDS)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Returns the handler of a method, as grpc asks for it."""
        known = self._handlers.get(details.method)
        if known is None:
            spec = self._routes.methods.get(details.method)
            if spec is None:
                return None
            known = self._handlers[details.method] = self._handler(spec)
        return known

    def _handler(self, spec: MethodSpec) -> "grpc.RpcMethodHandler[Any, Any]":
        if spec.shape is Shape.STREAM:
            return grpc.unary_stream_rpc_method_handler(
                self._watching(spec),
                request_deserializer=reader(spec, spec.most_bytes),
                response_serializer=spec.response.SerializeToString,
            )
        if spec.shape is not Shape.UNARY:
            return grpc.stream_stream_rpc_method_handler(
                self._exchanging(spec),
                request_deserializer=reader(spec, _MESSAGE_BYTES),
                response_serializer=spec.response.SerializeToString,
            )

        async def behaviour(request: Read, context: ServicerContext) -> Message | None:
            return await self._handle(spec, request, context)

        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=reader(spec, spec.most_bytes),
            response_serializer=spec.response.SerializeToString,
        )

    def _watching(self, spec: MethodSpec) -> Any:
        async def behaviour(request: Read, context: ServicerContext) -> AsyncIterator[Message]:
            request_names = next(names)
            await context.send_initial_metadata((("strongroom-request-id", request_names[0]),))
            try:
                call = await self._call(spec, checked(request), context, request_names)
                check = partial(self._still_mounted, call.mount)
                watch = self._streams.watch(call, check)
                async with self._watches.counted(), contextlib.aclosing(watch) as messages:
                    async for message in messages:
                        yield message
            except ServiceError as error:
                await abort(context, error)

        return behaviour

    def _exchanging(self, spec: MethodSpec) -> Any:
        async def behaviour(
            requests: AsyncIterator[Read], context: ServicerContext
        ) -> AsyncIterator[Message]:
            request_names = next(names)
            await context.send_initial_metadata((("strongroom-request-id", request_names[0]),))
            messages = _each(requests)
            try:
                async with self._exchanges.counted():
                    first = await _first(messages)
                    if first is None:
                        return
                    call = await self._call(spec, first, context, request_names)
                    check = partial(self._still_mounted, call.mount)
                    exchange = self._streams.exchange(call, _from(first, messages), check)
                    async with contextlib.aclosing(exchange) as answers:
                        async for answer in answers:
                            yield answer
            except ServiceError as error:
                await abort(context, error)

        return behaviour

    async def _still_mounted(self, mount: MountContext | None) -> None:
        found = (await self._mounts.current()).mounts.get(mount.path) if mount else None
        if mount is None or found is None or found.uuid != mount.uuid or found.state != ACTIVE:
            raise ServiceError(Kind.NOT_FOUND, "the mount was disabled or moved")

    async def _handle(
        self, spec: MethodSpec, message: Read, context: ServicerContext
    ) -> Message | None:
        request_names = next(names)
        trailing: list[tuple[str, str | bytes]] = [("strongroom-request-id", request_names[0])]
        call: Call | None = None
        try:
            call = await self._call(spec, checked(message), context, request_names)
            call.deadline = self._clock.monotonic() + MAX_SECONDS
            answer = await self._to_its_end(call)
        except ServiceError as error:
            context.set_trailing_metadata((*trailing, *_headers(call)))
            await abort(context, error)
            return None
        trailing += (("strongroom-warning", text) for text in _warnings(answer.encoded.warnings))
        if answer.wrapped and answer.encoded.wrap_info is not None:
            info = ParseDict(answer.encoded.wrap_info, wrapping_pb2.WrapInfo())
            trailing.append(("strongroom-wrap-info-bin", info.SerializeToString()))
        context.set_trailing_metadata((*trailing, *_headers(call)))
        return answer.response

    async def _to_its_end(self, call: Call) -> Answer:
        """Returns the answer to a request. Where the client leaves, or waits no longer, it goes on, as over HTTP.

        What was begun is then ended, and both of its entries are in the log.
        """
        handling = asyncio.ensure_future(self._pipeline.handle(call))
        self._handling.add(handling)
        handling.add_done_callback(self._handled)
        return await asyncio.shield(handling)

    def _handled(self, handling: asyncio.Future[Answer]) -> None:
        self._handling.discard(handling)
        if not handling.cancelled():
            handling.exception()  # is nobody's to look at where the client left

    async def _call(
        self, spec: MethodSpec, message: Any, context: ServicerContext, request: tuple[str, str]
    ) -> Call:
        request_id, fresh_trace = request
        metadata = _metadata(context)
        check_namespace(metadata.get("x-vault-namespace"))
        place, mount, missing = "", None, None
        if spec.mount is not None:
            mounts = await self._mounts.current()
            place = _place(message.mount)
            found = mounts.mounts.get(place)
            if found is not None and found.state == ACTIVE:
                mount = mounts.contexts[found.path]
            if found is None or mount is None or found.kind != spec.mount:
                # Said only to those who may go there: which mounts exist is nobody else's to know.
                missing = invalid("mount: names no mount that has this method")
        path, folder = canonical(PREFIX + place + path_for(spec, message))
        if folder:
            check_folder(path, spec.operation)
        relative, captures = respelled(
            spec, path[len(place) :], self._routes.captures(spec, path[len(place) :])
        )
        path = (place + relative).removesuffix("/")
        given = spec.given_plan.fields(message, captures)
        for name in spec.request_plan.from_path:
            setattr(message, name, captures.get(name, ""))
        if spec.mount is None and not spec.works_sealed:
            contexts = (await self._mounts.current()).contexts
            mount = contexts["auth/token/" if path.startswith("auth/token/") else "sys/"]
        trace, foreign = trace_of(metadata.get("traceparent"), fresh_trace)
        return Call(
            spec=spec if missing is None else None,
            message=message,
            missing=missing,
            path=path + "/" if spec.lists else path,
            mount=mount,
            token_text=_token(metadata),
            client_address=_address(context.peer()),
            operation=spec.capability,
            parameters=lambda: given,
            wrap_ttl=wrap_ttl_of(metadata.get("x-vault-wrap-ttl")),
            traceparent=trace,
            foreign_trace=foreign,
            linearizable=metadata.get("x-strongroom-consistency") == "linearizable",
            request_id=request_id,
            method=spec.name,
            header=metadata.get,
        )


async def _each(requests: AsyncIterator[Read]) -> AsyncGenerator[Message]:
    async for request in requests:
        yield checked(request)


async def _first(messages: AsyncIterator[Message]) -> Message | None:
    """Returns the first message, which says what the stream is for; None where there is none at all."""
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            return await anext(messages, None)
    except TimeoutError:
        raise ServiceError(Kind.DEADLINE, "no message came in time") from None


async def _from(first: Message, messages: AsyncGenerator[Message]) -> AsyncGenerator[Message]:
    yield first
    async with contextlib.aclosing(messages):
        async for message in messages:
            yield message


def _place(mount: str) -> str:
    """Returns the path of a mount as a message names it, with a slash at its end.

    Raises:
        ServiceError: INVALID where it names none.
    """
    name = mount.strip("/")
    if not name:
        raise invalid("mount: is empty")
    return f"{name}/"


def _warnings(texts: Sequence[str] | None) -> Iterator[str]:
    """Yields warnings as metadata can have them, which must not be what an answer fails for.

    They are printable ASCII, and no more of them than clients take.
    """
    left = _WARNINGS_BYTES
    for number, text in enumerate(texts or ()):
        left -= len(text) + _EACH_BYTES
        if left < 0:
            yield f"{len(texts or ()) - number} more warnings are left out"
            return
        yield "".join(each if " " <= each <= "~" else "?" for each in text)


def _headers(call: Call | None) -> list[tuple[str, str]]:
    """Returns what an answer says beside itself, as metadata."""
    return call.headers if call is not None else []


def _metadata(context: ServicerContext) -> dict[str, str]:
    """Returns the metadata of a call that is text. Of a name that comes again the first counts, as over HTTP."""
    pairs = reversed(list(context.invocation_metadata() or ()))
    return {key: value for key, value in pairs if isinstance(value, str)}


def _token(metadata: Mapping[str, str]) -> str:
    token = metadata.get("x-vault-token", "")
    authorization = metadata.get("authorization", "")
    if not token and authorization.startswith("Bearer "):
        token = authorization[7:]
    return token


def _address(peer: str) -> str:
    """Returns the IP address of what grpc calls ipv4:127.0.0.1:50000 or ipv6:%5B::1%5D:50000."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")

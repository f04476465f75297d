"""The serving end of the link: frames of calls in, frames of replies out, and plain unary methods.

Both run the same handlers. A caller is whoever its certificate says: `spiffe://<domain>/service/<name>`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from strongroom.link.v1 import link_pb2, peer_pb2
from strongroom.options.v1 import options_pb2
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import GRPC_CODES, Kind, ServiceError, denied
from strongroom_runtime.handlers import (
    DuplexHandler,
    HandlerTable,
    LocalCaller,
    Method,
    StreamHandler,
)
from strongroom_runtime.link.deadlines import Deadlines
from strongroom_runtime.link.direct import MAX_ITEM, DirectListener
from strongroom_runtime.link.exchange import Exchange
from strongroom_runtime.link.messages import (
    AS_MEMBER,
    BEGUN,
    CONTEXT_KEY,
    ERROR_DOMAIN,
    NOT_BEGUN,
    context_from_wire,
    error_to_wire,
)
from strongroom_runtime.telemetry import Telemetry
from strongroom_runtime.tracing import traced
from strongroom_runtime.transport.leaving import OpenStreams
from strongroom_runtime.transport.names import identity_of

_IDLE_POLL_SECONDS = 0.02
_EXCHANGE = "/strongroom.link.v1.LinkService/Exchange"
_CONFIRMATIONS = f"/{peer_pb2.DESCRIPTOR.services_by_name['PeerService'].full_name}/"

ServicerContext = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)


def allowed_callers(method: Method) -> frozenset[str]:
    """Returns the services that may call: the gateway for public routes, else those the contract names."""
    options = method.descriptor.GetOptions()
    named = frozenset(options.Extensions[options_pb2.callers])
    return named | {"gateway"} if options.HasExtension(options_pb2.route) else named


class LinkServer(grpc.GenericRpcHandler):
    """Answers the link's stream and the unary and streaming methods of one handler table.

    Args:
        table: what is served.
        trust_domain: callers outside it are refused.
        clock: for deadlines.
        telemetry: of the service, for a span around each handler.
        direct: takes connections beside streams; None for none.
        takes: whether streams are taken now; None for always. Whoever is refused asks another replica. Streams of
            members, for confirmations, are taken always.

    `duplexes` are the streams both ways that are open, `watches` those of this server.
    """

    def __init__(
        self,
        table: HandlerTable,
        trust_domain: str,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        direct: DirectListener | None = None,
        takes: Callable[[], bool] | None = None,
    ) -> None:
        self._direct = direct
        self._takes = takes
        self._methods = table.methods
        self._local = traced(LocalCaller(table), telemetry or Telemetry(""))
        self._allowed: dict[str, frozenset[str]] = {}
        self._prefix = identity_of("", trust_domain)
        self._clock = clock or SystemClock()
        self._streams: set[Exchange] = set()
        self._deadlines: Deadlines[asyncio.Task[Any]] = Deadlines(asyncio.Task.cancel)
        self.duplexes, self.watches = OpenStreams(), OpenStreams()
        self._draining = False

    def drain(self) -> None:
        """Tells every open stream to send no new calls; those under way are answered."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    async def idle(self) -> None:
        """Returns once all calls were answered. Streams of their own do not count."""
        while self._streams:
            await asyncio.sleep(_IDLE_POLL_SECONDS)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Returns the handler of a method, as grpc asks for it."""
        if details.method == _EXCHANGE:
            return grpc.stream_stream_rpc_method_handler(
                self._exchange,
                request_deserializer=link_pb2.ExchangeRequest.FromString,
                response_serializer=link_pb2.ExchangeResponse.SerializeToString,
            )
        method = self._methods.get(details.method)
        if method is None:
            return None
        codec: dict[str, Any] = {
            "request_deserializer": method.request.FromString,
            "response_serializer": method.response.SerializeToString,
        }
        if method.unary is not None:
            behaviour = self._unary(method.name)
            return grpc.unary_unary_rpc_method_handler(behaviour, **codec)
        if method.stream is not None:
            behaviour = self._stream(method.name, method.stream)
            return grpc.unary_stream_rpc_method_handler(behaviour, **codec)
        if method.duplex is not None:
            behaviour = self._duplex(method.name, method.duplex)
            return grpc.stream_stream_rpc_method_handler(behaviour, **codec)
        return None

    async def run(self, call: link_pb2.Call, caller: str) -> link_pb2.Reply:
        """Runs one call of a frame. Never raises: what goes wrong is in the reply."""
        try:
            method = self._find(call.method, caller)
            if method.unary is None:
                raise ServiceError(Kind.UNSUPPORTED, "a stream cannot travel in a frame")
            request = method.request.FromString(call.request)
            seconds = call.timeout_microseconds / 1e6
            deadline = self._clock.monotonic() + seconds if seconds else 0.0
            context = context_from_wire(call.context, caller=caller, deadline=deadline)
            answering = self._local.call(method.name, request, context)
            response = await (self._in_time(answering, seconds) if seconds else answering)
            data = response.SerializeToString()
            if len(data) > MAX_ITEM:
                raise ServiceError(Kind.TOO_LARGE, "the answer is too large")
            return link_pb2.Reply(id=call.id, response=data)
        except ServiceError as error:
            return _failed(call, error)
        except TimeoutError:
            return _failed(call, ServiceError(Kind.DEADLINE, "the deadline passed"))
        except DecodeError:
            return _failed(call, ServiceError(Kind.INVALID, "the request message is malformed"))
        except Exception:
            log.exception("handler failed", extra={"method": call.method})
            return _failed(call, ServiceError(Kind.INTERNAL, "internal error"))

    async def _in_time(self, answering: Awaitable[Message], seconds: float) -> Message:
        """Returns an answer, for which this task is cancelled if it takes too long.

        Raises:
            TimeoutError: it did.
        """
        task: Any = asyncio.current_task()
        self._deadlines.add(task, task.get_loop().time() + seconds)
        try:
            return await answering
        except asyncio.CancelledError:
            if task in self._deadlines:
                raise  # somebody else cancelled it
            task.uncancel()
            raise TimeoutError from None
        finally:
            self._deadlines.discard(task)

    def _find(self, name: str, caller: str) -> Method:
        method = self._methods.get(name)
        if method is None:
            raise ServiceError(Kind.UNSUPPORTED, "this service does not answer that method")
        allowed = self._allowed.get(name)
        if allowed is None:  # not at the start: services may be added to the table until then
            allowed = self._allowed[name] = allowed_callers(method)
        if caller not in allowed:
            raise denied("this service may not call that method")
        return method

    def _caller(self, context: ServicerContext) -> str:
        """Returns the service that the peer's certificate names, or an empty string."""
        for identity in context.auth_context().get("peer_spiffe_id", ()):
            text = identity.decode(errors="replace")
            if text.startswith(self._prefix):
                return text[len(self._prefix) :]
        return ""

    async def _exchange(
        self, frames: AsyncIterator[link_pb2.ExchangeRequest], context: ServicerContext
    ) -> None:
        caller = self._caller(context)
        if not caller:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the certificate names no service")
        if AS_MEMBER[0] in tuple(context.invocation_metadata() or ()):
            await context.send_initial_metadata(BEGUN)
            confirming = Exchange(lambda call: self._confirm(call, caller), context)
            await self._answer(frames, confirming, caller)
            return
        await self._begin(context)
        stream = Exchange(lambda call: self.run(call, caller), context)
        self._streams.add(stream)
        if self._draining:
            stream.drain()
        try:
            await self._answer(frames, stream, caller)
        finally:
            self._streams.discard(stream)

    async def _answer(
        self, frames: AsyncIterator[link_pb2.ExchangeRequest], stream: Exchange, caller: str
    ) -> None:
        """Runs the calls of a stream, and of the connection beside it, until the caller ends it."""
        direct = self._direct.admit(self._prefix + caller, stream.take) if self._direct else None
        if direct is not None:
            stream.announce(direct)
        try:
            async for frame in frames:
                stream.take(frame)
            await stream.finish()
        finally:
            if self._direct is not None and direct is not None:
                self._direct.dismiss(direct)

    async def _confirm(self, call: link_pb2.Call, caller: str) -> link_pb2.Reply:
        """Runs one call of a member's stream."""
        if call.method.startswith(_CONFIRMATIONS):
            return await self.run(call, caller)
        return _failed(
            call, ServiceError(Kind.UNSUPPORTED, "a member's stream carries confirmations alone")
        )

    def _context(self, context: ServicerContext, name: str) -> RequestContext:
        caller = self._caller(context)
        self._find(name, caller)
        metadata = dict(context.invocation_metadata() or ())
        value = metadata.get(CONTEXT_KEY, b"")
        wire = link_pb2.RequestContext.FromString(value if isinstance(value, bytes) else b"")
        remaining = context.time_remaining()
        deadline = self._clock.monotonic() + remaining if remaining is not None else 0.0
        return context_from_wire(wire, caller=caller, deadline=deadline)

    async def _begin(self, context: ServicerContext) -> None:
        """Takes a stream, or refuses it before anything of it ran."""
        if self._draining or (self._takes is not None and not self._takes()):
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "this replica takes no calls now", NOT_BEGUN
            )
        await context.send_initial_metadata(BEGUN)

    def _unary(self, name: str) -> Any:
        async def behaviour(request: Message, context: ServicerContext) -> Message | None:
            async with _reporting(context, name):
                answer: Message = await self._local.call(
                    name, request, self._context(context, name)
                )
                return answer
            return None  # it was ended with an error

        return behaviour

    def _stream(self, name: str, handler: StreamHandler) -> Any:
        async def behaviour(request: Message, context: ServicerContext) -> AsyncIterator[Message]:
            async with _reporting(context, name):
                inner = self._context(context, name)
                await self._begin(context)
                async with self.watches.counted():
                    async for message in handler(request, inner):
                        yield message

        return behaviour

    def _duplex(self, name: str, handler: DuplexHandler) -> Any:
        async def behaviour(
            requests: AsyncIterator[Message], context: ServicerContext
        ) -> AsyncIterator[Message]:
            async with _reporting(context, name):
                inner = self._context(context, name)
                await self._begin(context)
                async with self.duplexes.counted():
                    async for message in handler(requests, inner):
                        yield message

        return behaviour


def _failed(call: link_pb2.Call, error: ServiceError) -> link_pb2.Reply:
    return link_pb2.Reply(id=call.id, error=error_to_wire(error))


@contextlib.asynccontextmanager
async def _reporting(context: ServicerContext, name: str) -> AsyncIterator[None]:
    """Ends a gRPC call with what its handler raises; a bug without its text."""
    try:
        yield
    except ServiceError as error:
        await abort(context, error)
    except (grpc.aio.AbortError, grpc.aio.InternalError):
        raise  # gRPC's own: the call was ended, or its caller is gone
    except Exception:
        log.exception("handler failed", extra={"method": name})
        await abort(context, ServiceError(Kind.INTERNAL, "internal error"))


async def abort(context: ServicerContext, error: ServiceError) -> None:
    """Ends a gRPC call with an error: canonical code, text, and the kind in `google.rpc.ErrorInfo`.

    Returns, and so does the handler: gRPC, which keeps its exception, raises it again. With the frames that it comes
    through it would be a cycle, and the request's message would stay in memory until garbage is collected.
    """
    status = status_pb2.Status(
        code=int(GRPC_CODES[error.kind].value[0]),
        message=error.message or code_pb2.Code.Name(int(GRPC_CODES[error.kind].value[0])),
    )
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.kind.value, domain=ERROR_DOMAIN)
    )
    try:
        await context.abort_with_status(rpc_status.to_status(status))
    except grpc.aio.AbortError as ended:
        ended.__traceback__ = ended.__context__ = None
    except grpc.aio.InternalError:
        pass  # the client has left, and gRPC has not said so yet: nobody is there to be told

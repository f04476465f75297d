"""An echo service whose descriptor is built here, so that the link is tested without any real service."""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2

from strongroom.options.v1 import options_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import HandlerTable, Shape

NAME = "strongroom.testing.echo.EchoService"


def _descriptor() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="strongroom/testing/echo.proto",
        package="strongroom.testing.echo",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="EchoService")
    text = ".google.protobuf.StringValue"
    for name, callers, shape in (
        ("Echo", ["gateway"], Shape.UNARY),
        ("Fail", ["gateway"], Shape.UNARY),
        ("Crash", ["gateway"], Shape.UNARY),
        ("Wait", ["gateway"], Shape.UNARY),
        ("WhoAmI", ["gateway"], Shape.UNARY),
        ("OnlyAuth", ["auth"], Shape.UNARY),
        ("Count", ["gateway"], Shape.STREAM),
        ("Sum", ["gateway"], Shape.DUPLEX),
        ("Double", ["gateway"], Shape.BATCHES),
    ):
        rpc = service.method.add(
            name=name,
            input_type=text,
            output_type=text,
            client_streaming=shape in (Shape.BATCHES, Shape.DUPLEX),
            server_streaming=shape is not Shape.UNARY,
        )
        rpc.options.Extensions[options_pb2.callers].extend(callers)
        if shape is Shape.BATCHES:
            rpc.options.Extensions[options_pb2.route].batches = True
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool


POOL = _descriptor()
SERVICE = POOL.FindServiceByName(NAME)
Text = wrappers_pb2.StringValue


class Echo:
    """Answers with what it was sent, in several ways."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.release = asyncio.Event()
        self.taken = 0  # requests of streams
        self.refuses: Kind | None = None

    async def Echo(self, request: Text, context: RequestContext) -> Text:
        if self.refuses is not None:
            raise ServiceError(self.refuses, "refused")
        return Text(value=request.value)

    async def Fail(self, request: Text, context: RequestContext) -> Text:
        raise ServiceError(Kind.NOT_FOUND, "nothing", data=b'{"a":1}', warnings=("beware",))

    async def Crash(self, request: Text, context: RequestContext) -> Text:
        raise RuntimeError(f"a bug with a secret: {request.value}")

    async def Wait(self, request: Text, context: RequestContext) -> Text:
        self.waiting.set()
        await self.release.wait()
        return Text(value=request.value)

    async def WhoAmI(self, request: Text, context: RequestContext) -> Text:
        mount = context.mount.path if context.mount else ""
        token = context.token.accessor if context.token else ""
        return Text(value=f"{context.caller} {context.request_id} {mount} {token}")

    async def OnlyAuth(self, request: Text, context: RequestContext) -> Text:
        return Text(value="reached")

    async def Count(self, request: Text, context: RequestContext) -> AsyncIterator[Text]:
        for n in range(int(request.value)):
            yield Text(value=str(n))

    async def Sum(
        self, requests: AsyncIterator[Text], context: RequestContext
    ) -> AsyncIterator[Text]:
        """Answers each number with the sum so far; `fail` and `crash` do what they say, `wait` waits."""
        total = 0
        async for request in requests:
            self.taken += 1
            if request.value == "fail":
                raise ServiceError(Kind.NOT_FOUND, "nothing")
            if request.value == "crash":
                raise RuntimeError("a bug with a secret: hunter2")
            if request.value == "wait":
                self.waiting.set()
                await self.release.wait()
                continue
            total += int(request.value)
            yield Text(value=str(total))

    async def Double(self, request: Text, context: RequestContext) -> Text:
        return Text(value=request.value * 2)


def table(implementation: Echo | None = None) -> HandlerTable:
    """Returns a handler table with the echo service."""
    handlers = HandlerTable()
    handlers.add(SERVICE, implementation or Echo())
    return handlers

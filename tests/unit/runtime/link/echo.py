"""An echo service whose descriptor is built here, so that the link is tested without any real service."""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2

from strongroom.options.v1 import options_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import HandlerTable

NAME = "strongroom.testing.echo.EchoService"


def _descriptor() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="strongroom/testing/echo.proto",
        package="strongroom.testing.echo",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="EchoService")
    text = ".google.protobuf.StringValue"
    for name, callers, streaming in (
        ("Echo", ["gateway"], False),
        ("Fail", ["gateway"], False),
        ("Crash", ["gateway"], False),
        ("Wait", ["gateway"], False),
        ("WhoAmI", ["gateway"], False),
        ("OnlyAuth", ["auth"], False),
        ("Count", ["gateway"], True),
    ):
        rpc = service.method.add(
            name=name, input_type=text, output_type=text, server_streaming=streaming
        )
        rpc.options.Extensions[options_pb2.callers].extend(callers)
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

    async def Echo(self, request: Text, context: RequestContext) -> Text:
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


def table(implementation: Echo | None = None) -> HandlerTable:
    """Returns a handler table with the echo service."""
    handlers = HandlerTable()
    handlers.add(SERVICE, implementation or Echo())
    return handlers

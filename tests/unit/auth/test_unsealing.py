"""Requests that come in the moment of unsealing, before the service knows the time."""

import asyncio

from tests.unit.auth.harness import Auth

from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller


async def test_a_request_waits_for_the_time() -> None:
    auth = await Auth().prepare()
    await auth("WritePolicy", name="reader", policy='path "a" { capabilities = ["read"] }')
    auth.service.clock.forget()
    reading = asyncio.create_task(auth("ReadPolicy", name="reader"))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await auth.service.clock.find()
    await reading


async def test_no_method_works_without_the_time() -> None:
    auth = await Auth(clock_seconds=0.001).prepare()
    auth.service.clock.forget()
    caller = LocalCaller(auth.service.handlers)
    methods = [method for method in auth.service.handlers.methods.values() if method.unary]
    assert len(methods) > 50
    calls = (caller.call(each.name, each.request(), RequestContext("r")) for each in methods)
    for refusal in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(refusal, ServiceError)
        assert refusal.kind is Kind.UNAVAILABLE

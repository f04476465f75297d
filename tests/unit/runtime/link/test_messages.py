"""Contexts that come over the wire: what is made of a token is kept, as far as there is room for it."""

from strongroom.link.v1 import link_pb2
from strongroom_runtime.context import RequestContext, TokenContext
from strongroom_runtime.link.messages import context_from_wire, context_to_wire


def over_the_wire(token: TokenContext) -> RequestContext:
    message = link_pb2.RequestContext()
    context_to_wire(RequestContext("r", token=token), message)
    return context_from_wire(message, caller="gateway", deadline=0.0)


def test_a_token_is_read_once() -> None:
    token = TokenContext("id-1", "accessor", "alice", policies=("p", "q"), entity_id="e")
    first = over_the_wire(token)
    assert first.token == token
    assert over_the_wire(token).token is first.token


def test_one_that_is_large_is_read_each_time() -> None:
    """Who makes tokens says what they are called: a few thousand of these would fill the memory."""
    token = TokenContext("id-2", "accessor", "a" * 100_000)
    first = over_the_wire(token)
    assert first.token == token
    assert over_the_wire(token).token is not first.token

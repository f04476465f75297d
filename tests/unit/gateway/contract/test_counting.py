"""Messages that would be far larger in memory than on the wire."""

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from strongroom.auth.v1 import token_pb2
from strongroom.transit.v1 import cipher_pb2
from strongroom_gateway.contract.counting import Shape, has_too_many_fields

PADDING = b"\x7a\x80\x80\x04" + bytes(64 << 10)  # one field, nobody's, that makes a message large
SHAPE = Shape.of(cipher_pb2.EncryptRequest.DESCRIPTOR)


def encoded(message: Message) -> bytes:
    return message.SerializeToString() + PADDING


def items(count: int, **fields: bytes) -> Message:
    message = cipher_pb2.EncryptRequest(name="k")
    for _ in range(count):
        message.batch_input.add(**fields)
    return message


@pytest.mark.parametrize("fields", [{}, {"plaintext": b"a"}, {"plaintext": b"a" * 300}])
def test_items_and_what_is_in_them_are_counted(fields: dict[str, bytes]) -> None:
    most = 100
    each = 1 + len(fields)
    count = (most - 2) // each  # the name and the padding are fields, too
    assert not has_too_many_fields(encoded(items(count, **fields)), SHAPE, most)
    assert has_too_many_fields(encoded(items(count + 1, **fields)), SHAPE, most)


def test_lists_in_messages_are_counted() -> None:
    parameters = token_pb2.TokenParameters(policies=[""] * 200, ttl=300)
    shape = Shape.of(token_pb2.CreateTokenRequest.DESCRIPTOR)
    message = encoded(token_pb2.CreateTokenRequest(parameters=parameters))
    assert has_too_many_fields(message, shape, 200)
    assert not has_too_many_fields(message, shape, 202)


def test_fields_of_the_least_size_are_counted() -> None:
    assert not has_too_many_fields(items(99).SerializeToString(), SHAPE, 100)
    assert has_too_many_fields(items(100).SerializeToString(), SHAPE, 100)


@given(st.binary(max_size=200))
def test_whatever_comes_is_counted_without_an_error(data: bytes) -> None:
    """What can be parsed has no more than were counted; of the rest parsing says what is wrong."""
    try:
        parsed = cipher_pb2.EncryptRequest.FromString(data + PADDING)
    except DecodeError:
        has_too_many_fields(data + PADDING, SHAPE, 10)
        return
    if len(parsed.batch_input) > 10:
        assert has_too_many_fields(data + PADDING, SHAPE, 10)

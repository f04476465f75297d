"""The first start of a platform whose services take their time."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from strongroom.auth.v1 import token_pb2, token_pb2_grpc
from strongroom_cli.bootstrap import Platform


class Tokens(token_pb2_grpc.TokenServiceServicer):
    """Answers each method with what it is told to, one code after the other, and then well."""

    def __init__(self) -> None:
        self.codes: dict[str, list[grpc.StatusCode]] = {}
        self.done: list[str] = []

    async def CreateToken(self, request: Any, context: Any) -> Any:
        await self._answer(f"create {request.parameters.id}", context)
        return token_pb2.CreateTokenResponse()

    async def RevokeSelf(self, request: Any, context: Any) -> Any:
        await self._answer("revoke", context)
        return token_pb2.RevokeSelfResponse()

    async def _answer(self, what: str, context: Any) -> None:
        if codes := self.codes.get(what):
            await context.abort(codes.pop(0), "the service is starting")
        self.done.append(f"{what} by {dict(context.invocation_metadata())['x-vault-token']}")


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()  # type: ignore[abstract]  # the methods that are called here


@pytest_asyncio.fixture
async def platform(tokens: Tokens) -> AsyncIterator[Platform]:
    server = grpc.aio.server()
    token_pb2_grpc.add_TokenServiceServicer_to_server(tokens, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    platform = Platform(f"127.0.0.1:{port}", None)
    yield platform
    await platform.close()
    await server.stop(None)


async def test_a_root_token_is_replaced_once_services_have_started(
    platform: Platform, tokens: Tokens
) -> None:
    starting = [grpc.StatusCode.UNAVAILABLE] * 2
    tokens.codes = {"create chosen": [*starting], "revoke": [*starting]}
    await platform.replace_root("made", "chosen")
    assert tokens.done == ["create chosen by made", "revoke by made"]
    assert tokens.codes == {"create chosen": [], "revoke": []}


async def test_a_root_token_that_is_refused_leaves_the_one_there_is(
    platform: Platform, tokens: Tokens
) -> None:
    tokens.codes = {"create chosen": [grpc.StatusCode.INVALID_ARGUMENT]}
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await platform.replace_root("made", "chosen")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert tokens.done == []

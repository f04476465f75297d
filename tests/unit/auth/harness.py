"""Calls the auth service through its handler table, as the gateway does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from google.protobuf.message import Message
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import (
    approle_pb2,
    gate_pb2,
    login_pb2,
    policy_pb2,
    token_lease_pb2,
    token_pb2,
    userpass_pb2,
)
from strongroom.kv.v1 import cubbyhole_pb2
from strongroom_auth.config import Config
from strongroom_auth.service import AuthService, build
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Host
from strongroom_runtime.storage import Transaction

MODULES = (token_pb2, gate_pb2, policy_pb2, userpass_pb2, approle_pb2, token_lease_pb2)
ROOT = "srs.root-token-of-the-tests"
TOKEN_MOUNT = MountContext("auth/token/", "token", "token", "auth_token_1")
LOGIN_MOUNT = MountContext("auth/people/", "userpass", "login-mount", "auth_people_1")


class Kv:
    """Stands in for the kv service: remembers whose data was dropped, or is away. `kept` has the tokens with data."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.kept: list[str] = []
        self.away = False

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        if isinstance(request, cubbyhole_pb2.ListTokensWithDataRequest):
            page = [each for each in sorted(self.kept) if each > request.after][:2]
            return cubbyhole_pb2.ListTokensWithDataResponse(token_ids=page)
        assert isinstance(request, cubbyhole_pb2.DropTokenDataRequest)
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "away")
        self.dropped.append(request.token_id)
        return cubbyhole_pb2.DropTokenDataResponse()


class Auth:
    """One process of the service; `twin` makes another over the same store."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        clock: ManualClock | None = None,
        clock_seconds: float = 0.01,
    ) -> None:
        self.store = store or MemoryStore()
        self.clock = clock or ManualClock()
        self.kv = Kv()
        host = Host(self.store, self.clock, {"kv": self.kv})
        self.service: AuthService = build(
            host, Config(bcrypt_rounds=4, clock_seconds=clock_seconds)
        )
        self._caller = LocalCaller(self.service.handlers)

    async def prepare(self) -> "Auth":
        await self.service._tokens.records.prepare()
        await self.service.clock.find()
        await self("AdoptRootToken", token=ROOT)
        return self

    async def twin(self) -> "Auth":
        return await Auth(self.store, self.clock).prepare()

    async def __call__(
        self, method: str, context: RequestContext | None = None, **fields: Any
    ) -> Any:
        module, service = next(
            (m, s)
            for m in MODULES
            for s in m.DESCRIPTOR.services_by_name.values()
            if method in s.methods_by_name
        )
        request = getattr(module, f"{method}Request")
        name = f"/{service.full_name}/{method}"
        return await self._caller.call(name, request(**fields), context or RequestContext("r"))

    async def entry(self, text: str, address: str = "127.0.0.1") -> Any:
        """Resolves a token as the gateway does."""
        return await self("ResolveToken", token=text, client_address=address)

    async def works(self, text: str) -> bool:
        try:
            await self.entry(text)
        except ServiceError as error:
            assert error.kind is Kind.DENIED
            return False
        return True

    async def context(self, text: str, *, sudo: bool = False) -> RequestContext:
        """Returns the context of a request with a token."""
        entry = await self.entry(text)
        token = TokenContext(
            entry.id,
            entry.accessor,
            entry.display_name,
            tuple(entry.policies),
            root="root" in entry.policies,
        )
        return RequestContext("r", "auth/token/create", TOKEN_MOUNT, token, "127.0.0.1", sudo=sudo)

    async def create(
        self, by: str = ROOT, *, sudo: bool = False, role: str = "", **fields: Any
    ) -> Any:
        """Makes a token and returns its `Auth`."""
        parameters = token_pb2.TokenParameters(**fields)
        context = await self.context(by, sudo=sudo)
        answer = await self("CreateToken", context, role_name=role, parameters=parameters)
        return answer.auth

    async def clean(self) -> None:
        """Lets the worker do all that there is to do."""
        for _ in range(20):
            if not await self.service._cleanup.step():
                return
        raise AssertionError("the worker does not come to an end")

    async def stored(self, kind: str) -> int:
        return len([e for e in await self.store.scan(()) if str(e.path[0]) == kind])


def login_context(address: str = "127.0.0.1", **changes: Any) -> RequestContext:
    """Returns the context of a request to the login mount."""
    context = RequestContext("r", "auth/people/login/ann", LOGIN_MOUNT, client_address=address)
    return msgspec.structs.replace(context, **changes)


def before_the_next(kind: str, auth: Auth, happens: Callable[[], Awaitable[Any]]) -> None:
    """Lets something happen at the last moment before a record of a kind, such as a token, is written."""
    commit, left = auth.store.commit, [happens]

    async def late(transaction: Transaction) -> int:
        if left and any(path[0] == kind for path in transaction.puts):
            await left.pop()()
        return await commit(transaction)

    auth.store.commit = late  # type: ignore[method-assign]


def only_one_more_commit(auth: Auth) -> None:
    """Lets the store go away once the next change is made."""
    commit = auth.store.commit

    async def away(transaction: Transaction) -> int:
        raise ServiceError(Kind.UNAVAILABLE, "away")

    async def last(transaction: Transaction) -> int:
        auth.store.commit = away  # type: ignore[method-assign]
        return await commit(transaction)

    auth.store.commit = last  # type: ignore[method-assign]


async def refused(call: Any, kind: Kind, message: str = "") -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.kind is kind, caught.value.message
    assert message in caught.value.message


def texts(*values: str) -> login_pb2.TextList:
    return login_pb2.TextList(values=values)


async def count(results: Any) -> int:
    """Returns how many of some calls, made at once, succeeded."""
    done = await asyncio.gather(*results, return_exceptions=True)
    for each in done:
        assert not isinstance(each, BaseException) or isinstance(each, ServiceError), each
    return sum(not isinstance(each, BaseException) for each in done)

"""Seal processes for tests, and the services around them."""

import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from tests import waiting
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import gate_pb2
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.service import Host
from strongroom_seal.config import Config
from strongroom_seal.service import SealService, build

ONE = {"secret_shares": 1, "secret_threshold": 1}
TWO_OF_THREE = {"secret_shares": 3, "secret_threshold": 2}
RECOVERY = {"recovery_shares": 1, "recovery_threshold": 1}


class Auth:
    """Takes root tokens unless it is away."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.away = False

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        assert method.endswith("/AdoptRootToken")
        assert isinstance(request, gate_pb2.AdoptRootTokenRequest)
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "away")
        self.tokens.append(request.token)
        return gate_pb2.AdoptRootTokenResponse()


class Process:
    """One seal process over a store that outlives it; called with the name of an RPC and the request's fields."""

    def __init__(
        self, store: MemoryStore, auth: Auth, config: Config, clock: Clock | None = None
    ) -> None:
        host = Host(store, clock or SystemClock(), peers={"auth": auth})
        self.service: SealService = build(host, config)
        self._methods = {m.descriptor.name: m for m in self.service.handlers.methods.values()}

    async def __call__(self, method: str, **fields: Any) -> Any:
        found = self._methods[method]
        assert found.unary is not None
        return await found.unary(found.request(**fields), RequestContext("r"))

    @property
    def sealed(self) -> bool:
        return self.service.seal.sealed


@contextlib.asynccontextmanager
async def processes(store: MemoryStore, auth: Auth, folder: Path) -> AsyncIterator[Any]:
    """Gives a function that starts a process, with a static key if asked to; ends all of them."""
    running: list[Process] = []
    key = folder / "seal.key"
    key.write_bytes(os.urandom(32))

    async def start(static: bool = False) -> Process:
        config = Config(static_key_file=key if static else None, adopt_seconds=0.1)
        running.append(Process(store, auth, config))
        await running[-1].service.start()
        return running[-1]

    yield start
    for one in running:
        await one.service.stop()


async def unseal(process: Process, keys: Any) -> None:
    for key in keys:
        await process("Unseal", key=key)
    assert not process.sealed


def wrong_share(share: str) -> str:
    """A share of nothing that may stand beside this one: its coordinate, the last byte, is another."""
    return os.urandom(32).hex() + f"{int(share[-2:], 16) % 255 + 1:02x}"


async def refused(call: Any, message: str, kind: Kind = Kind.INVALID) -> None:
    with pytest.raises(ServiceError, match=message) as caught:
        await call
    assert caught.value.kind is kind


until = partial(waiting.until, seconds=10)

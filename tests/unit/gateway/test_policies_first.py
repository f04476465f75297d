"""What cannot be read in a request is said to those alone whom the policies let through."""

from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.unit.gateway.fakes import Audit, Gate, Mounts, Rules
from tests.unit.gateway.http.test_wire import NOTHING, ROUTES, Asked, Seal

from strongroom_gateway.admission import Admission
from strongroom_gateway.http.wire import HttpWire
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.observe.observer import Observer
from strongroom_gateway.pipeline import Pipeline
from strongroom_gateway.wrapping.older_unwrap import OlderUnwrap
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.telemetry import Telemetry

TOKEN = {"x-vault-token": "token"}


def wire(policy: str, audit: Audit, seal: Seal | None = None) -> HttpWire:
    seal = seal or Seal()
    admission = Admission(Gate(policy), Mounts(), lambda: seal.closed)  # type: ignore[arg-type]
    nobody: Any = {}
    pipeline = Pipeline(
        nobody, admission, Rules(), audit, None,  # type: ignore[arg-type]
        Observer(Telemetry("gateway"), Metrics()),
    )  # fmt: skip
    mounts, clock = MountTable(MemoryStore()), ManualClock()
    return HttpWire(
        ROUTES, mounts, pipeline, NOTHING, NOTHING, clock, seal.check, OlderUnwrap(ROUTES, NOTHING)
    )


@pytest.mark.parametrize(
    ("asked", "allows", "text"),
    [
        (
            Asked("LIST", "/v1/auth/token/roles", TOKEN, "limit=junk"),
            'path "auth/token/roles" { capabilities = ["list"] }',
            b"limit: takes a whole number",
        ),
        (
            Asked("POST", "/v1/auth/token/create", TOKEN, body=b'{"ttl": "junk"}'),
            'path "auth/token/create" { capabilities = ["update"] }',
            b"ttl: takes seconds",
        ),
        (
            Asked("POST", "/v1/sys/mounts/new", TOKEN, body=b'{"config": "x"}'),
            'path "sys/mounts/new" { capabilities = ["create", "update", "sudo"] }',
            b"config: takes an object",
        ),
    ],
)
async def test_policies_are_asked_before_fields_are_read(
    asked: Asked, allows: str, text: bytes
) -> None:
    for policy, status, said in (
        ('path "other" { capabilities = ["read"] }', 403, b"permission denied"),
        (allows, 400, text),
    ):
        audit = Audit()
        response = await wire(policy, audit).handle(asked.request)
        assert (response.status, said in response.body) == (status, True), response.body
        assert {kind for kind, _, _ in audit.entries} == {"request", "response"}
        assert audit.entries[-1][2]


async def test_without_a_token_nothing_is_said_of_fields() -> None:
    asked = Asked("POST", "/v1/auth/token/create", {}, body=b'{"ttl": "junk"}')
    response = await wire("", Audit()).handle(asked.request)
    assert (response.status, b"ttl" in response.body) == (403, False)


async def test_what_needs_no_keys_says_it_at_once() -> None:
    seal = Seal()
    seal.closed = True
    handle = wire("", Audit(), seal).handle
    response = await handle(Asked("POST", "/v1/sys/unseal", {}, body=b'{"key": {}}').request)
    assert (response.status, b"key: takes a text" in response.body) == (400, True)
    response = await handle(
        Asked("POST", "/v1/auth/token/create", {}, body=b'{"ttl": "x"}').request
    )
    assert response.status == 503

"""What the HTTP wire makes of a request before the pipeline has it."""

from collections import Counter
from typing import Any

import pytest
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import policy_pb2, token_pb2
from strongroom.seal.v1 import seal_pb2
from strongroom.sys.v1 import mounts_pb2
from strongroom_gateway.call import Call
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.http.wire import HttpRequest, HttpWire
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.wrapping.older_unwrap import OlderUnwrap
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import Kind, ServiceError, denied

NOTHING: Any = None  # what these requests do not get to
ROUTES = RouteTable(
    service
    for file in (seal_pb2, mounts_pb2, token_pb2, policy_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)


class Asked:
    """A request. `read` counts how often each of its headers is read: each reading copies them all."""

    def __init__(
        self, method: str, path: str, headers: dict[str, str], query: str = "", body: bytes = b""
    ) -> None:
        self.read: Counter[str] = Counter()
        self._headers, self._sent = headers, body
        self.request = HttpRequest(method, path, query, self._header, self._body, "127.0.0.1")

    def _header(self, name: str) -> str | None:
        self.read[name] += 1
        return self._headers.get(name)

    async def _body(self) -> bytes:
        return self._sent


class Seal:
    """Is open until it is closed."""

    closed = False

    def check(self) -> None:
        if self.closed:
            raise ServiceError(Kind.SEALED, "Vault is sealed")


def wire(seal: Seal, mounts: Any = NOTHING, pipeline: Any = NOTHING) -> HttpWire:
    clock: Any = ManualClock()
    return HttpWire(
        ROUTES, mounts, pipeline, NOTHING, NOTHING, clock, seal.check, OlderUnwrap(ROUTES, NOTHING)
    )


class Pipeline:
    """Refuses all, and remembers what was asked."""

    asked: Any = None

    async def handle(self, call: Call) -> Any:
        self.asked = call
        raise denied()


@pytest.mark.parametrize(
    ("name", "told"),
    [("team", (("x-vault-namespace", "team"),)), ("tëam", ())],
)
async def test_the_namespace_is_read_once_and_said_again(name: str, told: object) -> None:
    asked = Asked("GET", "/v1/secret/data/a", {"x-vault-namespace": name})
    response = await wire(Seal()).handle(asked.request)
    assert (response.status, response.headers) == (404, told)
    assert asked.read["x-vault-namespace"] == 1


@pytest.mark.parametrize(
    ("method", "path", "sealed", "unsealed"),
    [
        ("OPTIONS", "/v1/sys/seal-status", 405, 405),
        ("OPTIONS", "/v1/sys/unseal", 405, 405),
        ("OPTIONS", "/v1/sys/mounts", 503, 405),
        ("OPTIONS", "/v1/secret/data/a", 503, 405),
        ("BREW", "/v1/secret/data/a", 405, 405),
    ],
)
async def test_what_a_sealed_platform_says_to_other_verbs(
    method: str, path: str, sealed: int, unsealed: int
) -> None:
    seal = Seal()
    handle = wire(seal).handle
    assert (await handle(Asked(method, path, {}).request)).status == unsealed
    seal.closed = True
    assert (await handle(Asked(method, path, {}).request)).status == sealed


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_query_of_a_write_says_nothing(method: str) -> None:
    """What it gave would be seen by no policy and stand in no audit entry. OpenBao passes it over as well."""
    pipeline, merge = Pipeline(), {"content-type": "application/merge-patch+json"}
    handle = wire(Seal(), MountTable(MemoryStore()), pipeline).handle
    path = "/v1/sys/policies/acl/app"
    for body in (b"", b'{"cas": 1}'):
        asked = Asked(method, path, merge, "policy=x&rules=y&cas_required=true&bogus=1", body)
        await handle(asked.request)
        message, given = pipeline.asked.message, pipeline.asked.parameters()
        assert (message.name, message.policy, message.cas_required) == ("app", "", False)
        assert (message.cas, given) == ((1, {"cas": 1}) if body else (0, {}))
        assert not pipeline.asked.warnings


@pytest.mark.parametrize(("text", "limit"), [("max", 0), ("7", 7)])
async def test_a_list_may_be_as_long_as_it_can(text: str, limit: int) -> None:
    pipeline = Pipeline()
    handle = wire(Seal(), MountTable(MemoryStore()), pipeline).handle
    await handle(Asked("LIST", "/v1/auth/token/roles", {}, f"limit={text}").request)
    assert pipeline.asked.message.limit == limit

"""What the HTTP wire makes of a request before the pipeline has it."""

from collections import Counter
from typing import Any

import pytest

from strongroom.seal.v1 import seal_pb2
from strongroom.sys.v1 import mounts_pb2
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.http.wire import HttpRequest, HttpWire
from strongroom_runtime.errors import Kind, ServiceError

NOTHING: Any = None  # what these requests do not get to
ROUTES = RouteTable(
    service
    for file in (seal_pb2, mounts_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)


class Asked:
    """A request. `read` counts how often each of its headers is read: each reading copies them all."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        self.read: Counter[str] = Counter()
        self._headers = headers
        self.request = HttpRequest(method, path, "", self._header, self._body, "127.0.0.1")

    def _header(self, name: str) -> str | None:
        self.read[name] += 1
        return self._headers.get(name)

    async def _body(self) -> bytes:
        return b""


class Seal:
    """Is open until it is closed."""

    closed = False

    def check(self) -> None:
        if self.closed:
            raise ServiceError(Kind.SEALED, "Vault is sealed")


def wire(seal: Seal) -> HttpWire:
    return HttpWire(ROUTES, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, seal.check)


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

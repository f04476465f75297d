"""Settings of the gateway: what may be written, and that every gateway has it."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message
from tests.fakes.store import MemoryStore

from strongroom.sys.v1 import config_pb2, quotas_pb2
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.quotas.rpc import QuotaHandlers
from strongroom_gateway.settings.rpc import ConfigHandlers
from strongroom_gateway.settings.store import SettingsStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError


class Gateway:
    """The handlers of one gateway over a store that others share."""

    def __init__(self, store: MemoryStore) -> None:
        self.settings = SettingsStore(store)
        self.mounts = MountTable(store)
        state = {"cluster_name": "test"}
        self._handlers = (
            (config_pb2, ConfigHandlers(self.settings, state)),
            (quotas_pb2, QuotaHandlers(self.settings, self.mounts)),
        )

    async def __call__(self, method: str, **fields: Any) -> Any:
        for module, handlers in self._handlers:
            request: type[Message] | None = getattr(module, f"{method}Request", None)
            if request is not None:
                return await getattr(handlers, method)(request(**fields), RequestContext("r"))
        raise LookupError(method)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def gateway(store: MemoryStore) -> Gateway:
    return Gateway(store)


async def refused(call: Any, field: str, kind: Kind = Kind.INVALID) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert (caught.value.kind, field in caught.value.message) == (kind, True), caught.value.message


async def test_every_gateway_has_a_change_at_once(store: MemoryStore, gateway: Gateway) -> None:
    other = Gateway(store)
    assert not (await other.settings.current()).cors.enabled
    await gateway("WriteCors", allowed_origins=["https://a.example"])
    assert (await other.settings.current()).cors.origins == ("https://a.example",)
    await gateway("WriteRateLimit", name="q", rate=5, path="cubbyhole")
    await other.settings.current()
    assert other.settings.selection.find("builtin-cubbyhole", "x", "") is not None
    await other("DeleteRateLimit", name="q")
    await gateway.settings.current()
    assert gateway.settings.selection.empty


async def test_cors_is_off_until_it_is_turned_on(gateway: Gateway) -> None:
    assert await gateway("ReadCors") == config_pb2.ReadCorsResponse()
    await gateway("WriteCors", allowed_origins=["https://a.example"], allowed_headers=["X-Mine"])
    shown = await gateway("ReadCors")
    assert (shown.enabled, list(shown.allowed_origins.values)) == (True, ["https://a.example"])
    assert "X-Mine" in shown.allowed_headers.values
    await gateway("WriteCors", enabled=False)
    assert not (await gateway("ReadCors")).enabled


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "allowed_origins"),
        ({"allowed_origins": ["*", "https://a"]}, "allowed_origins"),
        ({"allowed_origins": ["https://a\r\nset-cookie: x"]}, "allowed_origins"),
        ({"allowed_origins": ["*"], "allowed_headers": ["X Y"]}, "allowed_headers"),
    ],
)
async def test_bad_cors_is_refused(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    await refused(gateway("WriteCors", **fields), field)
    assert not (await gateway("ReadCors")).enabled


async def test_headers_outside_of_the_api(gateway: Gateway) -> None:
    await gateway("WriteUiHeader", header="X-Frame-Options", values=["DENY"])
    assert (await gateway("ReadUiHeader", header="x-frame-options")).value == "DENY"
    shown = await gateway("ReadUiHeader", header="x-frame-options", multivalue=True)
    assert list(shown.values.values) == ["DENY"]
    assert list((await gateway("ListUiHeaders")).keys) == ["x-frame-options"]
    for header, values, field in (
        ("X-Vault-Token", ["x"], "header"),
        ("X", [], "values"),
        ("X", ["a\r\nb: c"], "values"),
        ("X: Y", ["a"], "header"),
    ):
        await refused(gateway("WriteUiHeader", header=header, values=values), field)
    await gateway("DeleteUiHeader", header="X-FRAME-OPTIONS")
    await refused(gateway("ListUiHeaders"), "", Kind.NOT_FOUND)


@pytest.mark.parametrize("name", ["X-Vault-Token", "authorization", "Cookie"])
async def test_headers_that_hold_secrets_are_audited_as_hmacs_only(
    gateway: Gateway, name: str
) -> None:
    await refused(gateway("WriteAuditedHeader", header=name), "hmac")
    await gateway("WriteAuditedHeader", header=name, hmac=True)
    found = await gateway("ReadAuditedHeader", header=name)
    assert found.header[name].hmac


async def test_audited_headers_are_known_in_lower_case(gateway: Gateway) -> None:
    await gateway("WriteAuditedHeader", header="X-Plain")
    await gateway("WriteAuditedHeader", header="X-Hashed", hmac=True)
    assert (await gateway.settings.current()).audited_headers == {
        "x-plain": False,
        "x-hashed": True,
    }
    await gateway("DeleteAuditedHeader", header="x-PLAIN")
    await refused(gateway("ReadAuditedHeader", header="x-plain"), "Could not find header")


async def test_the_configuration_is_shown(gateway: Gateway) -> None:
    shown = await gateway("ReadSanitizedState")
    assert json.loads(shown.document) == {"cluster_name": "test"}


async def test_quotas_are_written_read_and_removed(gateway: Gateway) -> None:
    await refused(gateway("ListRateLimits"), "", Kind.NOT_FOUND)
    await gateway("WriteRateLimit", name="q", rate=2.5, path="cubbyhole/x*", block_interval=9)
    shown = await gateway("ReadRateLimit", name="q")
    assert (shown.path, shown.rate, shown.interval, shown.block_interval) == (
        "cubbyhole/x*",
        2.5,
        1,
        9,
    )
    assert list((await gateway("ListRateLimits")).keys) == ["q"]
    await gateway("DeleteRateLimit", name="q")
    await gateway("DeleteRateLimit", name="q")
    await refused(gateway("ReadRateLimit", name="q"), "", Kind.NOT_FOUND)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": -1}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": 1, "path": "nowhere"}, "path"),
        ({"rate": 1, "path": "cubbyhole"}, "path"),
        ({"rate": 1, "path": "sys/", "role": "ci"}, "role"),
        ({"rate": 1, "path": "auth/token/create", "role": "ci"}, "role"),
        ({"rate": 1, "interval": -1}, "interval"),
        ({"rate": 1, "block_interval": -1}, "block_interval"),
        ({"rate": 1, "type": "lease-count"}, "type"),
        ({"rate": 1, "path": "cubbyhole/" + "x" * 503}, "path: may have at most 512 characters"),
        ({"rate": 1, "role": "x" * 513}, "role: may have at most 512 characters"),
    ],
)
async def test_bad_quotas_are_refused(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    await gateway("WriteRateLimit", name="known", rate=1, path="cubbyhole")
    await refused(gateway("WriteRateLimit", name="new", **fields), field)
    assert list((await gateway("ListRateLimits")).keys) == ["known"]


async def test_what_quotas_pass_over_is_bounded(gateway: Gateway) -> None:
    for paths, said in (
        (["x"] * 1_001, "rate_limit_exempt_paths: at most 1000 may be given"),
        (["x" * 513], "rate_limit_exempt_paths: may have at most 512 characters"),
    ):
        values = quotas_pb2.QuotaPaths(values=paths)
        await refused(gateway("WriteQuotaConfig", rate_limit_exempt_paths=values), said)


async def test_the_settings_of_quotas_keep_what_is_not_given(gateway: Gateway) -> None:
    await gateway("WriteQuotaConfig", enable_rate_limit_response_headers=True)
    paths = quotas_pb2.QuotaPaths(values=["/sys/health", "sys/raw/*"])
    await gateway("WriteQuotaConfig", rate_limit_exempt_paths=paths)
    shown = await gateway("ReadQuotaConfig")
    assert shown.enable_rate_limit_response_headers
    assert list(shown.rate_limit_exempt_paths) == ["sys/health", "sys/raw/*"]

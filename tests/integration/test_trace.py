"""One request is one trace through all services."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.collectors import Collector, Meters, collecting
from tests.integration.platforms import TOPOLOGIES, Platform, start, until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_metrics_of_every_process_reach_a_collector(
    topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters = Meters()
    with collecting(monkeypatch, meters=meters), start(tmp_path, topology) as platform:
        body = {"data": {"password": "hunter2-measured"}}
        platform.http("POST", "secret/data/measured", json=body)
        services = {"gateway"} if topology == "all" else set(platform.pids) - {"etcd"}
        until(lambda: services <= set(meters.names))
        until(lambda: "strongroom_requests" in meters.names["gateway"])
        storing = "gateway" if topology == "all" else "kv"
        until(lambda: "strongroom_store_transactions" in meters.names[storing])
    exported = b"".join(meters.raw)
    for secret in (b"hunter2-measured", b"measured", platform.root.encode()):
        assert secret not in exported


@pytest.fixture(params=TOPOLOGIES)
def traced(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Platform, Collector]]:
    collector = Collector()
    with collecting(monkeypatch, collector), start(tmp_path, request.param) as platform:
        yield platform, collector


def test_a_write_is_seen_in_every_service(traced: tuple[Platform, Collector]) -> None:
    platform, collector = traced
    made = platform.http("POST", "auth/token/create", json={"policies": ["root"]})
    token = made.json()["auth"]["client_token"]  # not known to the gateway yet
    header = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    body = {"data": {"password": "hunter2-traced"}}
    answer = platform.http("POST", "secret/data/traced", token, json=body, headers=header)
    assert answer.status_code == 200

    def services() -> set[tuple[str, str]]:
        return {(service, name) for service, name, trace in collector.spans if trace == TRACE}

    wanted = {
        ("gateway", "strongroom.kv.v1.KvV2Service/WriteSecret"),
        ("auth", "strongroom.auth.v1.TokenGateService/ResolveToken"),
        ("kv", "strongroom.kv.v1.KvV2Service/WriteSecret"),
        ("kv", "etcd transaction"),
        ("audit", "strongroom.audit.v1.AuditLogService/Append"),
    }
    until(lambda: wanted <= services())
    assert TRACE in platform.audit_log.read_text()
    exported = b"".join(collector.raw)
    for secret in (b"hunter2-traced", token.encode(), b"secret/data/traced"):
        assert secret not in exported

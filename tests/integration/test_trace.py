"""One request is one trace through all services."""

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.integration.platforms import TOPOLOGIES, Platform, start, until

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent: (service, name, trace id)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        self.raw: list[bytes] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.raw.append(request.SerializeToString())
        for resource in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found = (attributes["service.name"], span.name, span.trace_id.hex())
                    self.spans.append(found)
        return trace_service_pb2.ExportTraceServiceResponse()


class Meters(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the metrics that it is sent: names by service."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}
        self.raw: list[bytes] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.raw.append(request.SerializeToString())
        for resource in request.resource_metrics:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            names = self.names.setdefault(attributes["service.name"], set())
            names |= {m.name for scope in resource.scope_metrics for m in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_metrics_of_every_process_reach_a_collector(
    topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters = Meters()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(meters, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    with start(tmp_path, topology) as platform:
        body = {"data": {"password": "hunter2-measured"}}
        platform.http("POST", "secret/data/measured", json=body)
        services = {"gateway"} if topology == "all" else set(platform.pids) - {"etcd"}
        until(lambda: services <= set(meters.names))
        until(lambda: "strongroom_requests" in meters.names["gateway"])
        storing = "gateway" if topology == "all" else "kv"
        until(lambda: "strongroom_store_transactions" in meters.names[storing])
    server.stop(None)
    exported = b"".join(meters.raw)
    for secret in (b"hunter2-measured", b"measured", platform.root.encode()):
        assert secret not in exported


@pytest.fixture(params=TOPOLOGIES)
def traced(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Platform, Collector]]:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    with start(tmp_path, request.param) as platform:
        yield platform, collector
    server.stop(None)


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

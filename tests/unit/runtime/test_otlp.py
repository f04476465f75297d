"""Where telemetry goes, as the environment says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from strongroom_runtime import otlp, otlp_metrics, telemetry
from strongroom_runtime.metrics import Metrics


@pytest.fixture
def collector() -> Iterator[tuple[str, dict[str, bytes]]]:
    """One that is spoken to over HTTP: its address, and what it got by path."""
    got: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", got
    server.shutdown()
    server.server_close()


async def test_both_signals_go_over_http_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, collector: tuple[str, dict[str, bytes]]
) -> None:
    address, got = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    traces = telemetry.from_environment("kv")
    with traces.span("handler"):
        pass
    await traces.stop()
    metrics = otlp_metrics.from_environment(Metrics().registry, "kv")
    assert metrics is not None
    metrics.start()
    await metrics.stop()
    spans = ExportTraceServiceRequest.FromString(got["/v1/traces"]).resource_spans
    assert spans[0].scope_spans[0].spans[0].name == "handler"
    sent = ExportMetricsServiceRequest.FromString(got["/v1/metrics"]).resource_metrics
    assert any(each.name.startswith("strongroom_") for each in sent[0].scope_metrics[0].metrics)


@pytest.mark.parametrize(
    ("environment", "wrong"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, []),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, []),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            ["OTEL_EXPORTER_OTLP_PROTOCOL: takes grpc or http/protobuf"],
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "x", "OTEL_TRACES_EXPORTER": "none"},
            [],  # nothing is sent by it
        ),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE": "/nowhere"},
            [
                "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE: takes a file that this process may read",
            ],
        ),
    ],
)
def test_what_is_wrong_with_the_variables_is_told(
    environment: dict[str, str], wrong: list[str]
) -> None:
    assert otlp.wrong({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **environment}) == wrong
    assert otlp.wrong(environment) == []


def test_a_folder_is_no_certificate(tmp_path: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path),
    }
    assert len(otlp.wrong(environment)) == 1

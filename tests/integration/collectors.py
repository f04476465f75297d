"""What takes the spans and metrics of a platform, as a collector of OpenTelemetry would."""

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


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


@contextlib.contextmanager
def collecting(
    monkeypatch: pytest.MonkeyPatch,
    collector: Collector | None = None,
    meters: Meters | None = None,
) -> Iterator[None]:
    """Lets platforms that are started now send their spans, their metrics, or both."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    address = f"http://127.0.0.1:{port}"
    if collector is not None:
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    if meters is not None:
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(meters, server)  # type: ignore[no-untyped-call]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", address)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    server.start()
    try:
        yield
    finally:
        server.stop(None)

"""Traces across services."""

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from strongroom_runtime import telemetry
from strongroom_runtime.telemetry import Telemetry, from_environment

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_spans_of_two_services_are_one_trace() -> None:
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    gateway, kv = Telemetry("gateway", exporters[0]), Telemetry("kv", exporters[1])
    with gateway.span("request", PARENT) as sent, kv.span("handler", sent):
        pass
    await gateway.stop()
    await kv.stop()
    spans = {s.name: s for e in exporters for s in e.get_finished_spans()}
    traces = {s.context.trace_id for s in spans.values() if s.context}
    assert traces == {int("0af7651916cd43dd8448eb211c80319c", 16)}
    handler, request = spans["handler"], spans["request"]
    assert handler.parent is not None
    assert request.context is not None
    assert handler.parent.span_id == request.context.span_id
    assert handler.resource.attributes["service.name"] == "kv"


def test_without_an_exporter_the_trace_passes_through() -> None:
    with Telemetry("gateway").span("request", PARENT) as sent:
        assert sent == PARENT


async def test_the_text_of_an_exception_is_not_exported() -> None:
    exporter = InMemorySpanExporter()
    service = Telemetry("kv", exporter)
    with pytest.raises(ValueError, match="hunter2"), service.span("handler"):
        raise ValueError("hunter2")
    await service.stop()
    assert all("hunter2" not in span.to_json() for span in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], enabled: bool) -> None:
    assert from_environment("kv", environment).enabled is enabled


@pytest.mark.parametrize("raises", [False, True])
async def test_a_collector_that_is_away_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    """It gives up the exporter, whose waiting that ends."""
    monkeypatch.setattr(telemetry, "LAST_SECONDS", 0.05)
    given_up = threading.Event()

    class Away(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            given_up.wait()
            if raises:
                raise ValueError
            return SpanExportResult.FAILURE

        def shutdown(self) -> None:
            given_up.set()

    service = Telemetry("kv", Away())
    with service.span("handler"):
        pass
    await service.stop()
    assert given_up.is_set()
    assert "the collector did not take what was recorded last" in caplog.text

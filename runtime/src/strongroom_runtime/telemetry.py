"""Traces: spans around handlers, calls and storage transactions, carried by W3C trace context.

Configured only by the standard `OTEL_*` variables (OpenTelemetry specification, "Environment Variable
Specification"). Without an endpoint or an exporter named there, nothing is recorded and a span costs next to
nothing. Attributes are names of methods and codes, never values.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:  # the SDK is loaded where something is recorded
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_propagator = TraceContextTextMapPropagator()


class Telemetry:
    """The tracer of one service.

    Args:
        service: the `service.name` of its spans.
        exporter: where spans go; None records nothing.
    """

    def __init__(self, service: str, exporter: "SpanExporter | None" = None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: trace.Tracer | None = None
        if exporter is not None:
            self._provider = _provider(service, exporter)
            self._tracer = self._provider.get_tracer("strongroom")

    @property
    def enabled(self) -> bool:
        """Whether spans are recorded at all."""
        return self._tracer is not None

    def span(
        self, name: str, traceparent: str = "", attributes: Mapping[str, str | int] | None = None
    ) -> contextlib.AbstractContextManager[str]:
        """Runs the body in a span and yields the `traceparent` to send along.

        The parent is `traceparent` where given, else the span around. Without an exporter the
        traceparent is handed through unchanged, so that a trace passes services that record nothing.
        """
        if self._tracer is None:
            return contextlib.nullcontext(traceparent)
        return self._span(self._tracer, name, traceparent, attributes)

    @contextlib.contextmanager
    def _span(
        self,
        tracer: trace.Tracer,
        name: str,
        traceparent: str,
        attributes: Mapping[str, str | int] | None,
    ) -> Iterator[str]:
        parent = _propagator.extract({"traceparent": traceparent}) if traceparent else None
        token = otel_context.attach(parent) if parent is not None else None
        try:
            with tracer.start_as_current_span(
                name,
                attributes=dict(attributes or {}),
                # Both would export the exception's text, which may quote a value.
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                carrier: dict[str, str] = {}
                _propagator.inject(carrier)
                try:
                    yield carrier.get("traceparent", "")
                except Exception as error:
                    span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                    raise
        finally:
            if token is not None:
                otel_context.detach(token)

    def shutdown(self) -> None:
        """Sends what is recorded and ends."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider(service: str, exporter: "SpanExporter") -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def exported(signal: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether the `OTEL_*` variables ask for a signal, `TRACES` or `METRICS`, to be sent over OTLP."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    chosen = environment.get(f"OTEL_{signal}_EXPORTER", "")
    named = any(
        environment.get(name)
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    )
    return chosen == "otlp" or (chosen == "" and named)


def from_environment(service: str, environment: Mapping[str, str] = os.environ) -> Telemetry:
    """Returns the telemetry that the `OTEL_*` variables ask for."""
    if not exported("TRACES", environment):
        return Telemetry(service)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return Telemetry(service, OTLPSpanExporter())

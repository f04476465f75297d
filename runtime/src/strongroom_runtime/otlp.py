"""Where telemetry goes over OTLP, as the standard `OTEL_*` variables say.

See the OpenTelemetry specification, "OpenTelemetry Protocol Exporter". Exporters are loaded where something is sent.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

SIGNALS = ("TRACES", "METRICS")
_HTTP, _GRPC = "http/protobuf", "grpc"
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


def exported(signal: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether the `OTEL_*` variables ask for a signal, `TRACES` or `METRICS`, to be sent over OTLP."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    chosen = environment.get(f"OTEL_{signal}_EXPORTER", "")
    named = any(_given("ENDPOINT", signal, environment))
    return chosen == "otlp" or (chosen == "" and named)


def wrong(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns what is wrong with the variables of signals that are sent: each text names one, and what it takes."""
    found = {}
    for signal in SIGNALS:
        if not exported(signal, environment):
            continue
        for name, value in _given("PROTOCOL", signal, environment).items():
            if value not in (_HTTP, _GRPC):
                found[name] = f"{name}: takes {_GRPC} or {_HTTP}"
        for kind in _FILES:
            for name, value in _given(kind, signal, environment).items():
                if not os.access(value, os.R_OK) or not Path(value).is_file():
                    found[name] = f"{name}: takes a file that this process may read"
    return list(found.values())


def span_exporter(environment: Mapping[str, str] = os.environ) -> "SpanExporter":
    """Returns what sends spans."""
    if _protocol("TRACES", environment) == _HTTP:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

        return over_http.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

    return over_grpc.OTLPSpanExporter()


def metric_exporter(environment: Mapping[str, str] = os.environ) -> "MetricExporter":
    """Returns what sends metrics."""
    if _protocol("METRICS", environment) == _HTTP:
        from opentelemetry.exporter.otlp.proto.http import metric_exporter as over_http

        return over_http.OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as over_grpc

    return over_grpc.OTLPMetricExporter()


def _given(kind: str, signal: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of one kind that are set, for the signal before those for all."""
    names = (f"OTEL_EXPORTER_OTLP_{signal}_{kind}", f"OTEL_EXPORTER_OTLP_{kind}")
    return {name: environment[name] for name in names if environment.get(name)}


def _protocol(signal: str, environment: Mapping[str, str]) -> str:
    return next(iter(_given("PROTOCOL", signal, environment).values()), _GRPC)

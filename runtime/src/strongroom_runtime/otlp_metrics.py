"""The metrics of a process, sent to an OpenTelemetry collector.

The SDK's own instruments cost about twenty times what prometheus_client's do, on every request. So nothing is
measured twice: every so often what prometheus_client holds is turned into OpenTelemetry's data model and given to the
OTLP exporter. Configured by the standard `OTEL_*` variables alone (OpenTelemetry specification, "Environment Variable
Specification"). The mapping follows "Prometheus and OpenMetrics Compatibility" of the same specification.
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Iterable, Mapping

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.otlp import exported, metric_exporter
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.telemetry import aside, send_last

_SECONDS = 60.0


class MetricsExport:
    """Sends the metrics of a process at an interval.

    Args:
        registry: what holds them.
        service: the `service.name`.
        exporter: where they go.
        seconds: from one time to the next.
    """

    def __init__(
        self, registry: CollectorRegistry, service: str, exporter: MetricExporter, seconds: float
    ) -> None:
        self._registry = registry
        self._exporter = exporter
        self._seconds = seconds
        self._resource = Resource.create({"service.name": service})
        self._began = time.time_ns()
        self._sending = Repeated("the sending of metrics", logging.WARNING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to send."""
        self._task = asyncio.create_task(self._run(), name="metrics-export")

    async def stop(self) -> None:
        """Sends once more, as far as that goes quickly, and ends."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await send_last(self._send, lambda: self._exporter.shutdown(0))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await aside(self._send)

    def _send(self) -> None:
        with self._sending.turn():
            result = self._exporter.export(self.data(time.time_ns()))
            if result is not MetricExportResult.SUCCESS:
                raise ServiceError(Kind.UNAVAILABLE, "the collector did not take the metrics")

    def data(self, now: int) -> MetricsData:
        """Returns the metrics as they are, in OpenTelemetry's model; `now` in nanoseconds since 1970."""
        metrics = [
            metric
            for family in self._registry.collect()
            if (metric := _metric(family, self._began, now)) is not None
        ]
        scope = ScopeMetrics(InstrumentationScope("strongroom"), metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def from_environment(
    registry: CollectorRegistry, service: str, environment: Mapping[str, str] = os.environ
) -> MetricsExport | None:
    """Returns the export that the `OTEL_*` variables ask for; None for none."""
    if not exported("METRICS", environment):
        return None
    try:
        seconds = float(environment.get("OTEL_METRIC_EXPORT_INTERVAL", "")) / 1000
    except ValueError:
        seconds = _SECONDS
    return MetricsExport(registry, service, metric_exporter(environment), max(0.1, seconds))


def _metric(family: Family, began: int, now: int) -> Metric | None:
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        data = Histogram(_histograms(family.samples, began, now), AggregationTemporality.CUMULATIVE)
    elif family.type == "counter":
        data = Sum(_points(family.samples, began, now), AggregationTemporality.CUMULATIVE, True)
    elif family.type == "gauge":
        data = Gauge(_points(family.samples, None, now))
    else:
        return None
    return Metric(family.name, family.documentation, _unit(family.name), data)


def _unit(name: str) -> str:
    return {"seconds": "s", "bytes": "By"}.get(name.rpartition("_")[2], "1")


def _points(samples: Iterable[Sample], began: int | None, now: int) -> list[NumberDataPoint]:
    return [NumberDataPoint(s.labels, began, now, s.value) for s in samples]  # type: ignore[arg-type]


def _histograms(samples: Iterable[Sample], began: int, now: int) -> list[HistogramDataPoint]:
    """Returns the points of a histogram: Prometheus counts each bucket with all below it, OpenTelemetry alone."""
    series: dict[tuple[tuple[str, str], ...], dict[str, list[tuple[float, float]]]] = {}
    for sample in samples:
        bound = float(sample.labels.get("le", "nan"))
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        kind = sample.name.rpartition("_")[2]
        series.setdefault(labels, {}).setdefault(kind, []).append((bound, sample.value))
    points = []
    for labels, parts in series.items():
        below = [0.0, *(count for _, count in parts["bucket"])]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=began,
                time_unix_nano=now,
                count=int(parts["count"][0][1]),
                sum=parts["sum"][0][1],
                bucket_counts=[int(b - a) for a, b in itertools.pairwise(below)],
                explicit_bounds=[bound for bound, _ in parts["bucket"][:-1]],
                min=None,  # type: ignore[arg-type] # not known, and left out when sent
                max=None,  # type: ignore[arg-type]
            )
        )
    return points

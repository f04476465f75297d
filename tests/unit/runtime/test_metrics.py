"""Metrics, and how they reach OpenTelemetry."""

import time

import pytest
from opentelemetry.sdk.metrics.export import (
    Histogram,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    Sum,
)
from prometheus_client import CollectorRegistry

from strongroom_runtime.metrics import Metrics, Timings
from strongroom_runtime.otlp_metrics import MetricsExport, from_environment


def test_requests_are_counted_by_what_they_were_and_what_came_of_them() -> None:
    metrics = Metrics()
    for outcome in ("ok", "ok", "denied"):
        metrics.ended(metrics.begun(), "read", "kv", outcome)
    value = metrics.registry.get_sample_value
    labels = {"operation": "read", "mount_type": "kv"}
    assert value("strongroom_requests_total", {**labels, "outcome": "ok"}) == 2
    assert value("strongroom_requests_total", {**labels, "outcome": "denied"}) == 1
    assert value("strongroom_request_duration_seconds_count", labels) == 3
    assert value("strongroom_requests_in_flight") == 0
    metrics.begun()
    assert value("strongroom_requests_in_flight") == 1


def test_durations_are_sorted_into_buckets_that_add_up() -> None:
    timings = Timings(("n", "Number."), ("d_seconds", "Duration."), ("what", "outcome"))
    for outcome, seconds in (("ok", 0.0005), ("ok", 0.0006), ("failed", 0.3), ("ok", 11.0)):
        timings.note(("read", outcome), seconds)
    registry = CollectorRegistry()
    registry.register(timings)
    value = registry.get_sample_value
    assert value("n_total", {"what": "read", "outcome": "ok"}) == 3
    assert value("n_total", {"what": "read", "outcome": "failed"}) == 1
    buckets = {"0.0005": 1, "0.001": 2, "0.25": 2, "0.5": 3, "10.0": 3, "+Inf": 4}
    for bound, count in buckets.items():
        assert value("d_seconds_bucket", {"what": "read", "le": bound}) == count
    assert value("d_seconds_sum", {"what": "read"}) == pytest.approx(11.3011)


def test_the_seal_is_asked_when_the_metrics_are_read() -> None:
    metrics, sealed = Metrics(), [True]
    metrics.watch_seal(lambda: sealed[0])
    assert metrics.registry.get_sample_value("strongroom_sealed") == 1
    sealed[0] = False
    assert metrics.registry.get_sample_value("strongroom_sealed") == 0


def test_transactions_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics()
    for outcome in ("committed", "failed"):
        metrics.transaction_ended(time.perf_counter(), "kv", outcome)
    value = metrics.registry.get_sample_value
    name = "strongroom_store_transactions_total"
    assert value(name, {"service": "kv", "outcome": "committed"}) == 1
    assert value(name, {"service": "kv", "outcome": "failed"}) == 1


class Exporter(MetricExporter):
    """Keeps what it is given, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.given: list[MetricsData] = []
        self._fails = fails

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        if self._fails:
            raise OSError("no collector")
        self.given.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        pass


def exported(metrics: Metrics) -> dict[str, Metric]:
    export = MetricsExport(metrics.registry, "kv", Exporter(), 60)
    resource = export.data(2_000_000_000).resource_metrics[0]
    assert resource.resource.attributes["service.name"] == "kv"
    return {metric.name: metric for metric in resource.scope_metrics[0].metrics}


def test_counters_become_sums_and_histograms_keep_their_buckets() -> None:
    metrics = Metrics()
    metrics.ended(metrics.begun(), "read", "kv", "ok")
    metrics.ended(metrics.begun() - 3, "read", "kv", "ok")  # begun three seconds ago
    found = exported(metrics)
    total = found["strongroom_requests"].data
    assert isinstance(total, Sum)
    assert total.is_monotonic
    assert [(p.value, p.attributes) for p in total.data_points] == [
        (2.0, {"operation": "read", "mount_type": "kv", "outcome": "ok"})
    ]
    durations = found["strongroom_request_duration_seconds"]
    assert isinstance(durations.data, Histogram)
    assert durations.unit == "s"
    (point,) = durations.data.data_points
    assert point.count == sum(point.bucket_counts) == 2
    # One bucket more than bounds; the slow one lies between 2.5 and 5 seconds.
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert point.bucket_counts[list(point.explicit_bounds).index(5.0)] == 1
    assert point.sum >= 3


async def test_the_last_values_are_sent_at_the_end() -> None:
    metrics, exporter = Metrics(), Exporter()
    export = MetricsExport(metrics.registry, "kv", exporter, 3_600)
    export.start()
    await export.stop()
    assert len(exporter.given) == 1


async def test_a_collector_that_is_away_is_no_reason_to_fail() -> None:
    export = MetricsExport(Metrics().registry, "kv", Exporter(fails=True), 3_600)
    export.start()
    await export.stop()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_METRICS_EXPORTER": "otlp"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "soon"}, True),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], wanted: bool) -> None:
    found = from_environment(Metrics().registry, "kv", environment)
    assert (found is not None) is wanted

"""Metrics as clients read them: Prometheus' text, or JSON as of Vault (Vault documentation, "/sys/metrics")."""

import datetime
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Family


def as_prometheus(registry: CollectorRegistry) -> tuple[str, bytes]:
    """Returns the media type, and all metrics as text."""
    return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)


def as_json(registry: CollectorRegistry) -> tuple[str, bytes]:
    """Returns the media type, and all metrics as JSON; of what is distributed, count, sum and mean."""
    shown: dict[str, Any] = {
        "Timestamp": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
        "Gauges": [],
        "Points": [],
        "Counters": [],
        "Samples": [],
    }
    for family in registry.collect():
        if family.type == "histogram":
            shown["Samples"] += _samples(family)
            continue
        for sample in family.samples:
            entry = {"Name": sample.name, "Labels": sample.labels}
            if family.type == "counter":
                shown["Counters"].append({**entry, "Count": sample.value, "Sum": sample.value})
            else:
                shown["Gauges"].append({**entry, "Value": sample.value})
    return "application/json", msgspec.json.encode(shown)


def _samples(family: Family) -> list[dict[str, Any]]:
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for sample in family.samples:
        kind = sample.name.rpartition("_")[2]
        if kind in ("count", "sum"):
            found.setdefault(tuple(sorted(sample.labels.items())), {})[kind] = sample.value
    return [
        {
            "Name": family.name,
            "Count": int(parts["count"]),
            "Sum": parts["sum"],
            "Mean": parts["sum"] / parts["count"] if parts["count"] else 0.0,
            "Labels": dict(labels),
        }
        for labels, parts in found.items()
    ]

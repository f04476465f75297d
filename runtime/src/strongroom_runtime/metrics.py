"""The metrics of a process, kept by prometheus_client (decision 0010 says why, and how they reach OpenTelemetry).

Labels are names of the contracts, kinds of errors and names of services: never a path, a token or a name that anybody
chose, so that there are few of them and nothing in them is secret.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# A series more for each, of when it was made, that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The instruments of one process.

    Args:
        registry: what collects them; a new one where not given.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "strongroom_requests",
            "Requests of clients that were answered.",
            ("operation", "mount_type", "outcome"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "strongroom_request_duration_seconds",
            "How long requests of clients took, from their head to their answer.",
            ("operation", "mount_type"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._in_flight = Gauge(
            "strongroom_requests_in_flight",
            "Requests of clients that are under way.",
            registry=self.registry,
        )
        self._sealed = Gauge(
            "strongroom_sealed", "1 while this process has no keys.", registry=self.registry
        )
        self._audit_failures = Counter(
            "strongroom_audit_failures",
            "Appends that no audit device took; their requests failed.",
            registry=self.registry,
        )
        self._limited = Counter(
            "strongroom_rate_limited_requests",
            "Requests that a rate-limit quota refused.",
            registry=self.registry,
        )
        self._transactions = Counter(
            "strongroom_store_transactions",
            "Storage transactions by what became of them.",
            ("service", "outcome"),
            registry=self.registry,
        )
        self._transaction_seconds = Histogram(
            "strongroom_store_transaction_duration_seconds",
            "How long storage transactions took, with the confirmations of other members.",
            ("service",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._reads = Counter(
            "strongroom_store_reads_through",
            "Reads of storage that were not served from memory.",
            ("service",),
            registry=self.registry,
        )
        # What labels() would look up for each request, kept by its labels.
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def watch_seal(self, sealed: Callable[[], bool]) -> None:
        """Reports whether there are keys, each time that the metrics are read."""
        self._sealed.set_function(lambda: float(sealed()))

    def begun(self) -> float:
        """Notes that a request has begun; returns what `ended` wants."""
        self._in_flight.inc()
        return time.perf_counter()

    def ended(self, begun: float, operation: str, mount_type: str, outcome: str) -> None:
        """Notes that a request has ended.

        Args:
            begun: of its begin.
            operation: as policies name it.
            mount_type: where it went; empty for nowhere.
            outcome: `ok`, or the kind of its error.
        """
        self._in_flight.dec()
        pair = (operation, mount_type)
        histogram = self._histograms.get(pair)
        if histogram is None:
            histogram = self._histograms[pair] = self._request_seconds.labels(*pair)
        histogram.observe(time.perf_counter() - begun)
        triple = (operation, mount_type, outcome)
        counter = self._counters.get(triple)
        if counter is None:
            counter = self._counters[triple] = self._requests.labels(*triple)
        counter.inc()

    def audit_failed(self) -> None:
        """Notes that no audit device took an entry."""
        self._audit_failures.inc()

    def limited(self) -> None:
        """Notes that a quota refused a request."""
        self._limited.inc()

    def read_through(self, service: str) -> None:
        """Notes that a read went to the store."""
        self._reads.labels(service).inc()

    @contextmanager
    def transaction(self, service: str) -> Iterator[list[str]]:
        """Measures a storage transaction; the body puts what became of it into the list, else it failed."""
        outcome = ["failed"]
        begun = time.perf_counter()
        try:
            yield outcome
        finally:
            self._transactions.labels(service, outcome[0]).inc()
            self._transaction_seconds.labels(service).observe(time.perf_counter() - begun)

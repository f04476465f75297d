"""The metrics of a process, kept by prometheus_client (decision 0010 says why, and how they reach OpenTelemetry).

Labels are names of the contracts, kinds of errors and names of services: never a path, a token or a name that anybody
chose, so that there are few of them and nothing in them is secret.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# A series more for each, of when it was made, that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUNDS = (*map(str, _SECONDS), "+Inf")


class Timings(Collector):
    """What happens with every request, counted by what came of it and timed.

    prometheus_client's own instruments take a lock and some calls for each number; here one look-up notes all. What
    is shown is put together when it is asked for.

    Args:
        count: name and text of the counter.
        duration: name and text of the histogram, in seconds.
        labels: of the counter; the histogram has all but the last, which says what came of it.
    """

    def __init__(
        self, count: tuple[str, str], duration: tuple[str, str], labels: tuple[str, ...]
    ) -> None:
        self._count = count
        self._duration = duration
        self._labels = labels
        # For each value of the labels: how many took up to each bound but longer than the one before, how many took
        # longer than all, and the sum of their seconds.
        self._noted: dict[tuple[str, ...], list[float]] = {}

    def note(self, labels: tuple[str, ...], seconds: float) -> None:
        """Notes one that has ended."""
        noted = self._noted.get(labels)
        if noted is None:
            noted = self._noted[labels] = [0.0] * (len(_SECONDS) + 2)
        noted[bisect_left(_SECONDS, seconds)] += 1
        noted[-1] += seconds

    def collect(self) -> Iterable[Metric]:
        """Returns both metrics, as prometheus_client wants them."""
        count = CounterMetricFamily(*self._count, labels=self._labels)
        duration = HistogramMetricFamily(*self._duration, labels=self._labels[:-1])
        together: dict[tuple[str, ...], list[float]] = {}
        for labels, noted in list(self._noted.items()):
            count.add_metric(labels, sum(noted[:-1]))
            before = together.get(labels[:-1], [0.0] * len(noted))
            together[labels[:-1]] = [sum(each) for each in zip(before, noted, strict=True)]
        for labels, noted in together.items():
            upto = list(zip(_BOUNDS, accumulate(noted[:-1]), strict=True))
            duration.add_metric(labels, upto, noted[-1])
        return count, duration


class Metrics:
    """The instruments of one process.

    Args:
        registry: what collects them; a new one where not given.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Timings(
            ("strongroom_requests", "Requests of clients that were answered."),
            (
                "strongroom_request_duration_seconds",
                "How long requests of clients took, from their head to their answer.",
            ),
            ("operation", "mount_type", "outcome"),
        )
        self.registry.register(self._requests)
        self._under_way = 0
        Gauge(
            "strongroom_requests_in_flight",
            "Requests of clients that are under way.",
            registry=self.registry,
        ).set_function(lambda: self._under_way)
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
        self._transactions = Timings(
            ("strongroom_store_transactions", "Storage transactions by what became of them."),
            (
                "strongroom_store_transaction_duration_seconds",
                "How long storage transactions took, with the confirmations of other members.",
            ),
            ("service", "outcome"),
        )
        self.registry.register(self._transactions)
        self._reads = Counter(
            "strongroom_store_reads_through",
            "Reads of storage that were not served from memory.",
            ("service",),
            registry=self.registry,
        )

        self._unreadable = Counter(
            "strongroom_store_unreadable_entries",
            "Times that work on many entries of storage went past one that does not open or decode.",
            ("service",),
            registry=self.registry,
        )

    def watch_seal(self, sealed: Callable[[], bool]) -> None:
        """Reports whether there are keys, each time that the metrics are read."""
        self._sealed.set_function(lambda: float(sealed()))

    def begun(self) -> float:
        """Notes that a request has begun; returns what `ended` wants."""
        self._under_way += 1
        return time.perf_counter()

    def ended(self, begun: float, operation: str, mount_type: str, outcome: str) -> None:
        """Notes that a request has ended.

        Args:
            begun: of its begin.
            operation: as policies name it.
            mount_type: where it went; empty for nowhere.
            outcome: `ok`, or the kind of its error.
        """
        self._under_way -= 1
        self._requests.note((operation, mount_type, outcome), time.perf_counter() - begun)

    def audit_failed(self) -> None:
        """Notes that no audit device took an entry."""
        self._audit_failures.inc()

    def limited(self) -> None:
        """Notes that a quota refused a request."""
        self._limited.inc()

    def read_through(self, service: str) -> None:
        """Notes that a read went to the store."""
        self._reads.labels(service).inc()

    def unreadable(self, service: str) -> None:
        """Notes that an entry of a service could not be read, and was passed over."""
        self._unreadable.labels(service).inc()

    def transaction_ended(self, begun: float, service: str, outcome: str) -> None:
        """Notes that a storage transaction has ended.

        Args:
            begun: when it began, by `time.perf_counter`.
            service: whose it is.
            outcome: `committed`, `conflict` or `failed`.
        """
        self._transactions.note((service, outcome), time.perf_counter() - begun)

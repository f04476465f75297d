"""Traces: spans around handlers, calls and storage transactions, carried by W3C trace context.

Configured only by the standard `OTEL_*` variables (OpenTelemetry specification, "Environment Variable
Specification"). Without an endpoint or an exporter named there, nothing is recorded and a span costs next to
nothing. Attributes are names of methods and codes, never values.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from strongroom_runtime.otlp import exported, span_exporter

if TYPE_CHECKING:  # the SDK is loaded where something is recorded
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

# How long a process that ends keeps trying to send the last of it: a collector that is away holds up nobody.
LAST_SECONDS = 2.0

log = logging.getLogger(__name__)

_propagator = TraceContextTextMapPropagator()


class Telemetry:
    """The tracer of one service.

    Args:
        service: the `service.name` of its spans.
        exporter: where spans go; None records nothing.
    """

    def __init__(self, service: str, exporter: "SpanExporter | None" = None) -> None:
        self._exporter = exporter
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

    async def stop(self) -> None:
        """Sends what is recorded, as far as that goes quickly, and ends."""
        if self._provider is not None and self._exporter is not None:
            await send_last(self._provider.shutdown, self._exporter.shutdown)


def _provider(service: str, exporter: "SpanExporter") -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # `stop` ends it; at the end of the interpreter it would wait for the collector again.
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def from_environment(service: str, environment: Mapping[str, str] = os.environ) -> Telemetry:
    """Returns the telemetry that the `OTEL_*` variables ask for."""
    if not exported("TRACES", environment):
        return Telemetry(service)
    return Telemetry(service, span_exporter(environment))


async def aside(work: Callable[[], object]) -> None:
    """Runs what may wait for a collector in a thread for which the end of the process does not wait."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="otlp", daemon=True).start()
    await done


async def send_last(send: Callable[[], object], give_up: Callable[[], object]) -> None:
    """Sends what is left, and gives up after `LAST_SECONDS`.

    Args:
        send: sends it, and may wait.
        give_up: ends what sends it, without waiting.
    """
    try:
        async with asyncio.timeout(LAST_SECONDS):
            await aside(send)
    except TimeoutError:
        log.warning("the collector did not take what was recorded last")
    finally:
        give_up()

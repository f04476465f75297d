"""What is seen of a request from outside: a span, its metrics, and that it is under way."""

import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from strongroom_gateway.call import Call
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.telemetry import Telemetry

T = TypeVar("T")


class Observer:
    """Watches the requests of a process.

    Args:
        telemetry: of the gateway, for the span around a request.
        metrics: of the process.
    """

    def __init__(self, telemetry: Telemetry, metrics: Metrics) -> None:
        self._telemetry = telemetry
        self._metrics = metrics
        self._under_way: dict[str, tuple[float, Call]] = {}

    async def run(self, call: Call, handle: Callable[[Call], Coroutine[Any, Any, T]]) -> T:
        """Returns what comes of a request.

        Raises:
            ServiceError: as `handle` does.
        """
        begun = self._metrics.begun()
        self._under_way[call.request_id] = (begun, call)
        outcome = "internal"
        try:
            if self._telemetry.enabled:
                answer = await self._spanned(call, handle)
            else:
                answer = await handle(call)
            outcome = "ok"
            return answer
        except ServiceError as error:
            outcome = error.kind.value.lower()
            raise
        finally:
            del self._under_way[call.request_id]
            mount_type = call.mount.type if call.mount is not None else ""
            self._metrics.ended(begun, call.operation, mount_type, outcome)

    def under_way(self) -> Iterator[tuple[float, Call]]:
        """Yields the requests that are under way, each with the wall time of its beginning."""
        shift = time.time() - time.perf_counter()
        for begun, call in list(self._under_way.values()):
            yield begun + shift, call

    async def _spanned(self, call: Call, handle: Callable[[Call], Coroutine[Any, Any, T]]) -> T:
        name = call.spec.name.removeprefix("/") if call.spec is not None else "unknown path"
        parent = call.traceparent if call.foreign_trace else ""
        with self._telemetry.span(name, parent) as call.traceparent:
            return await handle(call)

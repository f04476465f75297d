"""Getting entries to the audit service: both of a request, before its answer."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from strongroom.audit.v1 import audit_pb2
from strongroom_gateway.audit.entries import (
    Device,
    Outcome,
    Subject,
    both_entries,
    request_entry,
    response_entry,
)
from strongroom_gateway.audit.redact import Hasher
from strongroom_gateway.kept import Kept
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.prefix import PrefixView
from strongroom_runtime.handlers import Caller
from strongroom_runtime.metrics import Metrics

T = TypeVar("T")

_RESOLVE = "/strongroom.audit.v1.AuditLogService/ResolveDevices"
APPEND = "/strongroom.audit.v1.AuditLogService/Append"
_ALL = "devices"

# Appends entries, each with the device that it is for; raises ServiceError where no device took them.
Append = Callable[[list[tuple[str, bytes]]], Coroutine[Any, Any, None]]


class AuditSink:
    """Writes entries to all devices.

    Args:
        audit: the audit service.
        view: what the audit service keeps, to know when its devices change.
        metrics: of the process.
        append: appends entries where the log is in this process; None where the audit service is called for that.
    """

    def __init__(
        self, audit: Caller, view: PrefixView, metrics: Metrics, append: Append | None = None
    ) -> None:
        self._audit = audit
        self._append_here = append
        self._metrics = metrics
        self._kept: Kept[list[Device]] = Kept(view)

    async def request(self, subject: Subject, context: RequestContext) -> None:
        """Writes the entry of a request that is about to change something.

        Raises:
            ServiceError: INTERNAL where no device took it: the request must not go on.
        """
        entries = [
            (each.path, request_entry(subject, each, "")) for each in await self._devices(context)
        ]
        await self._append(entries, context)

    async def response(self, subject: Subject, outcome: Outcome, context: RequestContext) -> None:
        """Writes the entry of an answer.

        Raises:
            ServiceError: INTERNAL where no device took it: the client must not get the answer.
        """
        entries = [
            (each.path, response_entry(subject, each, outcome))
            for each in await self._devices(context)
        ]
        await self._append(entries, context)

    async def both(self, subject: Subject, outcome: Outcome, context: RequestContext) -> None:
        """Writes both entries in one go, for requests that change nothing.

        Raises:
            ServiceError: INTERNAL where no device took them: the client must not get the answer.
        """
        entries = [
            (each.path, entry)
            for each in await self._devices(context)
            for entry in both_entries(subject, each, outcome)
        ]
        await self._append(entries, context)

    async def pair(
        self, asked: Subject, answered: Subject, outcome: Outcome, context: RequestContext
    ) -> None:
        """The same as `both`, where the second entry does not repeat what is in the first.

        Raises:
            ServiceError: INTERNAL where no device took them: the client must not get the answer.
        """
        entries = [
            (each.path, entry)
            for each in await self._devices(context)
            for entry in (
                request_entry(asked, each, outcome.error),
                response_entry(answered, each, outcome),
            )
        ]
        await self._append(entries, context)

    def _append(
        self, entries: list[tuple[str, bytes]], context: RequestContext
    ) -> Coroutine[Any, Any, None]:
        if not entries:
            return _nothing()
        if self._append_here is not None:
            return self._noting_failure(self._append_here(entries))
        request = audit_pb2.AppendRequest()
        add = request.entries.add
        for device, entry in entries:
            add(device=device, json=entry)
        return self._call(APPEND, request, context)

    async def _devices(self, context: RequestContext) -> list[Device]:
        known = self._kept.get(_ALL)
        if known is not None:
            return known
        response = await self._resolve(context, linearizable=False)
        if self._kept.stale(response.dependencies, response.as_of):
            response = await self._resolve(context, linearizable=True)
        devices = [Device(d.path, Hasher(d.salt), d.plain_accessors) for d in response.devices]
        self._kept.keep(_ALL, devices, list(response.dependencies), response.as_of)
        return devices

    async def _resolve(
        self, context: RequestContext, *, linearizable: bool
    ) -> audit_pb2.ResolveDevicesResponse:
        request = audit_pb2.ResolveDevicesRequest(linearizable=linearizable)
        response: audit_pb2.ResolveDevicesResponse = await self._call(_RESOLVE, request, context)
        return response

    async def _call(self, method: str, request: Any, context: RequestContext) -> Any:
        # The audit service is not told who asks for what: that is in the entries, as hashes.
        slim = RequestContext(
            context.request_id, traceparent=context.traceparent, deadline=context.deadline
        )
        return await self._noting_failure(self._audit.call(method, request, slim))

    async def _noting_failure(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except ServiceError as error:
            if error.kind is Kind.SEALED:
                raise
            self._metrics.audit_failed()
            raise ServiceError(
                Kind.INTERNAL, "internal error: no audit device took the entry"
            ) from error


async def _nothing() -> None:
    """There is no device to write to."""

"""Getting entries to the audit service: both of a request, before its answer."""

from collections.abc import Callable, Coroutine
from typing import Any

from strongroom.audit.v1 import audit_pb2
from strongroom_gateway.audit.entries import (
    Device,
    Outcome,
    Subject,
    both_entries,
    request_entry,
    response_entry,
)
from strongroom_gateway.audit.grouped import Append, unnamed
from strongroom_gateway.audit.redact import Hasher
from strongroom_gateway.kept import Kept
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.prefix import PrefixView
from strongroom_runtime.handlers import Caller
from strongroom_runtime.metrics import Metrics

_RESOLVE = "/strongroom.audit.v1.AuditLogService/ResolveDevices"
_ALL = "devices"


class AuditSink:
    """Writes entries to all devices.

    Args:
        audit: the audit service.
        view: what the audit service keeps, to know when its devices change.
        metrics: of the process.
        append: appends entries.
    """

    def __init__(self, audit: Caller, view: PrefixView, metrics: Metrics, append: Append) -> None:
        self._audit = audit
        self._append = append
        self._metrics = metrics
        self._kept: Kept[list[Device]] = Kept(view)

    def request(self, subject: Subject, context: RequestContext) -> Coroutine[Any, Any, None]:
        """Writes the entry of a request that is about to change something.

        Raises:
            ServiceError: INTERNAL where no device took it: the request must not go on.
        """
        return self._write(lambda device: (request_entry(subject, device, ""),), context)

    def response(
        self, subject: Subject, outcome: Outcome, context: RequestContext
    ) -> Coroutine[Any, Any, None]:
        """Writes the entry of an answer.

        Raises:
            ServiceError: INTERNAL where no device took it: the client must not get the answer.
        """
        return self._write(lambda device: (response_entry(subject, device, outcome),), context)

    def both(
        self, subject: Subject, outcome: Outcome, context: RequestContext
    ) -> Coroutine[Any, Any, None]:
        """Writes both entries in one go, for requests that change nothing.

        Raises:
            ServiceError: INTERNAL where no device took them: the client must not get the answer.
        """
        return self._write(lambda device: both_entries(subject, device, outcome), context)

    def pair(
        self, asked: Subject, answered: Subject, outcome: Outcome, context: RequestContext
    ) -> Coroutine[Any, Any, None]:
        """The same as `both`, where the second entry does not repeat what is in the first.

        Raises:
            ServiceError: INTERNAL where no device took them: the client must not get the answer.
        """

        def make(device: Device) -> tuple[bytes, ...]:
            return (
                request_entry(asked, device, outcome.error),
                response_entry(answered, device, outcome),
            )

        return self._write(make, context)

    async def _write(
        self, make: Callable[[Device], tuple[bytes, ...]], context: RequestContext
    ) -> None:
        """Writes what is made for each device."""
        try:
            devices = self._kept.get(_ALL)
            if devices is None:
                devices = await self._look_up(context)
            entries = [(each.path, entry) for each in devices for entry in make(each)]
            if entries:
                await self._append(entries, context)
        except ServiceError as error:
            if error.kind is Kind.SEALED:
                raise
            self._metrics.audit_failed()
            raise ServiceError(
                Kind.INTERNAL, "internal error: no audit device took the entry"
            ) from error

    async def _look_up(self, context: RequestContext) -> list[Device]:
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
        response: audit_pb2.ResolveDevicesResponse = await self._audit.call(
            _RESOLVE, request, unnamed(context)
        )
        return response

"""Getting entries to the audit service: both of a request, before its answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strongroom.audit.v1 import audit_pb2
from strongroom_gateway.audit.entries import Device, Subject, request_entry, response_entry
from strongroom_gateway.audit.redact import Hasher
from strongroom_gateway.kept import Kept
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.prefix import PrefixView
from strongroom_runtime.handlers import Caller

_RESOLVE = "/strongroom.audit.v1.AuditLogService/ResolveDevices"
_APPEND = "/strongroom.audit.v1.AuditLogService/Append"
_ALL = "devices"


@dataclass(slots=True)
class Outcome:
    """What came of a request."""

    error: str = ""
    data: Any = None
    auth: dict[str, Any] | None = None
    wrap_info: dict[str, Any] | None = None
    lease_id: str = ""


class AuditSink:
    """Writes entries to all devices.

    Args:
        audit: the audit service.
        view: what the audit service keeps, to know when its devices change.
    """

    def __init__(self, audit: Caller, view: PrefixView) -> None:
        self._audit = audit
        self._kept: Kept[list[Device]] = Kept(view)

    async def request(self, subject: Subject, context: RequestContext) -> None:
        """Writes the entry of a request that is about to change something.

        Raises:
            ServiceError: INTERNAL where no device took it: the request must not go on.
        """
        await self._write(context, lambda device: [request_entry(subject, device, "")])

    async def response(self, subject: Subject, outcome: Outcome, context: RequestContext) -> None:
        """Writes the entry of an answer.

        Raises:
            ServiceError: INTERNAL where no device took it: the client must not get the answer.
        """
        await self._write(context, lambda device: [_response(subject, device, outcome)])

    async def both(self, subject: Subject, outcome: Outcome, context: RequestContext) -> None:
        """Writes both entries in one go, for requests that change nothing.

        Raises:
            ServiceError: INTERNAL where no device took them: the client must not get the answer.
        """
        await self._write(
            context,
            lambda device: [
                request_entry(subject, device, outcome.error),
                _response(subject, device, outcome),
            ],
        )

    async def _write(
        self, context: RequestContext, entries_for: Callable[[Device], list[bytes]]
    ) -> None:
        devices = await self._devices(context)
        if devices:
            entries = [
                audit_pb2.Entry(device=device.path, json=entry)
                for device in devices
                for entry in entries_for(device)
            ]
            await self._call(_APPEND, audit_pb2.AppendRequest(entries=entries), context)

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
        try:
            return await self._audit.call(method, request, slim)
        except ServiceError as error:
            if error.kind is Kind.SEALED:
                raise
            raise ServiceError(
                Kind.INTERNAL, "internal error: no audit device took the entry"
            ) from error


def _response(subject: Subject, device: Device, outcome: Outcome) -> bytes:
    return response_entry(
        subject,
        device,
        error=outcome.error,
        data=outcome.data,
        auth=outcome.auth,
        wrap_info=outcome.wrap_info,
        lease_id=outcome.lease_id,
    )

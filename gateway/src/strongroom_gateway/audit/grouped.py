"""Audit entries of several requests in one call, where the audit service is called.

A call costs both sides more than the entries that it carries.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from strongroom.audit.v1 import audit_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.handlers import Caller
from strongroom_runtime.service import BackgroundTasks

APPEND = "/strongroom.audit.v1.AuditLogService/Append"
_MOST_BYTES = 1 << 20  # of one call, unless one request has more
_RECORDED = "-01"  # how a W3C trace context ends whose spans are recorded

Entries = list[tuple[str, bytes]]  # JSON objects, each with the device that it is for
# Appends the entries of a request; raises ServiceError where no device took them.
Append = Callable[[Entries, RequestContext], Coroutine[Any, Any, None]]

_Waiting = list[tuple[Entries, RequestContext, asyncio.Future[None]]]


class GroupedAppends:
    """Calls the audit service; appends that are ready in one turn of the event loop go together.

    They succeed or fail together, as those do that share a write of the file. Those of a request whose trace is
    recorded go by themselves, so that the trace shows them.

    Args:
        audit: the audit service.
    """

    def __init__(self, audit: Caller) -> None:
        self._audit = audit
        self._loop = asyncio.get_running_loop()
        self._waiting: _Waiting = []
        self._tasks = BackgroundTasks()

    async def append(self, entries: Entries, context: RequestContext) -> None:
        """Returns once entries are written. Once taken they are written even if the caller is cancelled.

        Raises:
            ServiceError: as the audit service does.
        """
        if context.traceparent.endswith(_RECORDED):
            await self._call([entries], context)
            return
        if not self._waiting:
            self._loop.call_soon(self._send)
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((entries, context, future))
        try:
            await future
        finally:
            del future  # it keeps an error, and the error's traceback this frame: a cycle

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        group: _Waiting = []
        size = 0
        for each in waiting:
            more = sum(len(entry) for _, entry in each[0])
            if group and size + more > _MOST_BYTES:
                self._tasks.start(self._append(group), "audit-append")
                group, size = [], 0
            group.append(each)
            size += more
        self._tasks.start(self._append(group), "audit-append")

    async def _append(self, group: _Waiting) -> None:
        # A request whose time is almost over must not take that of the others.
        context = max((each[1] for each in group), key=lambda c: c.deadline or math.inf)
        try:
            await self._call([entries for entries, _, _ in group], context)
        except Exception as error:
            for _, _, future in group:
                if not future.done():
                    future.set_exception(
                        error.again() if isinstance(error, ServiceError) else error
                    )
            return
        for _, _, future in group:
            if not future.done():
                future.set_result(None)

    async def _call(self, group: list[Entries], context: RequestContext) -> None:
        request = audit_pb2.AppendRequest()
        add = request.entries.add
        for entries in group:
            for device, entry in entries:
                add(device=device, json=entry)
        await self._audit.call(APPEND, request, unnamed(context))


def unnamed(context: RequestContext) -> RequestContext:
    """Returns what the audit service is told of a request: not who asks for what, which is in entries, as hashes."""
    return RequestContext(
        context.request_id, traceparent=context.traceparent, deadline=context.deadline
    )

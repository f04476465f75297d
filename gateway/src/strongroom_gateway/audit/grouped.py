"""Audit entries of several requests in one call, where the audit service is another process.

There a call costs both sides more than the entries that it carries.
"""

import asyncio
import math
from typing import Any

from google.protobuf.message import Message

from strongroom.audit.v1 import audit_pb2
from strongroom_gateway.audit.sink import APPEND
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.handlers import Caller
from strongroom_runtime.service import BackgroundTasks

_MOST_BYTES = 1 << 20  # of one call, unless one request has more
_RECORDED = "-01"  # how a W3C trace context ends whose spans are recorded

_Waiting = list[tuple[audit_pb2.AppendRequest, RequestContext, asyncio.Future[Message]]]


class GroupedAppends:
    """Calls the audit service; appends that are ready in one turn of the event loop go together.

    They succeed or fail together, as those do that share a write of the file. Those of a request whose trace is
    recorded go by themselves, so that the trace shows them.

    Args:
        audit: the audit service, in another process.
    """

    def __init__(self, audit: Caller) -> None:
        self._audit = audit
        self._waiting: _Waiting = []
        self._tasks = BackgroundTasks()

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        """Returns the response message. Entries once taken are written even if the caller is cancelled.

        Raises:
            ServiceError: as the audit service does.
        """
        if method != APPEND or context.traceparent.endswith(_RECORDED):
            return await self._audit.call(method, request, context)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        future: asyncio.Future[Message] = loop.create_future()
        self._waiting.append((request, context, future))
        return await future

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        group: _Waiting = []
        size = 0
        for each in waiting:
            more = each[0].ByteSize()
            if group and size + more > _MOST_BYTES:
                self._tasks.start(self._append(group), "audit-append")
                group, size = [], 0
            group.append(each)
            size += more
        self._tasks.start(self._append(group), "audit-append")

    async def _append(self, group: _Waiting) -> None:
        request = group[0][0]
        for other, _, _ in group[1:]:
            request.MergeFrom(other)
        # A request whose time is almost over must not take that of the others.
        context = max((each[1] for each in group), key=lambda c: c.deadline or math.inf)
        try:
            response = await self._audit.call(APPEND, request, context)
        except Exception as error:
            for _, _, future in group:
                if not future.done():
                    future.set_exception(
                        error.again() if isinstance(error, ServiceError) else error
                    )
            return
        for _, _, future in group:
            if not future.done():
                future.set_result(response)

"""Entries of requests where the log is in the same process, and where it is not."""

from typing import Any

import pytest

from strongroom.audit.v1 import audit_pb2
from strongroom_gateway.audit.entries import Outcome, Subject
from strongroom_gateway.audit.grouped import APPEND, Entries, GroupedAppends
from strongroom_gateway.audit.sink import AuditSink
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.metrics import Metrics

SUBJECT = Subject("id", "read", "secret/data/app", None, "127.0.0.1", "", "", None, {})


class View:
    """Follows a prefix in which nothing changes."""

    live, started = True, 1

    def certain(self) -> bool:
        return True

    def listen(self, listener: object) -> None:
        pass


class Log:
    """The audit service, called or in the same process; fails when told to."""

    def __init__(self, error: ServiceError | None = None) -> None:
        self.called: list[str] = []
        self.entries: list[tuple[str, bytes]] = []
        self.error = error

    async def append(self, entries: Entries, context: RequestContext) -> None:
        if self.error is not None:
            raise self.error
        self.entries += entries

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        self.called.append(method)
        if method == APPEND:
            await self.append([(each.device, each.json) for each in request.entries], context)
            return audit_pb2.AppendResponse()
        device = audit_pb2.SaltedDevice(path="file/", salt=b"salt")
        return audit_pb2.ResolveDevicesResponse(devices=[device], dependencies=[b"d"], as_of=1)


def sink_of(log: Log, metrics: Metrics, *, here: bool) -> AuditSink:
    view: Any = View()
    append = log.append if here else GroupedAppends(log).append
    return AuditSink(log, view, metrics, append)


@pytest.mark.parametrize("here", [True, False])
async def test_both_entries_of_a_request_reach_the_log(here: bool) -> None:
    log = Log()
    await sink_of(log, Metrics(), here=here).both(SUBJECT, Outcome(), RequestContext("id"))
    assert [device for device, _ in log.entries] == ["file/", "file/"]
    assert [b'"type":"request"' in entry for _, entry in log.entries] == [True, False]
    assert (APPEND in log.called) is not here


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize(
    ("kind", "told", "noted"),
    [(Kind.UNAVAILABLE, Kind.INTERNAL, 1.0), (Kind.SEALED, Kind.SEALED, 0.0)],
)
async def test_a_request_fails_whose_entries_no_device_takes(
    here: bool, kind: Kind, told: Kind, noted: float
) -> None:
    metrics = Metrics()
    sink = sink_of(Log(ServiceError(kind, "disk full")), metrics, here=here)
    for write in (
        sink.request(SUBJECT, RequestContext("id")),
        sink.response(SUBJECT, Outcome(), RequestContext("id")),
    ):
        with pytest.raises(ServiceError) as caught:
            await write
        assert caught.value.kind is told
    counted = metrics.registry.get_sample_value("strongroom_audit_failures_total")
    assert counted == 2 * noted

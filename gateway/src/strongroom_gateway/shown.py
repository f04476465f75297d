"""What the messages of server streams show to whom."""

from collections.abc import Callable
from typing import Any

from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import kv2_pb2
from strongroom.sys.v1 import observe_pb2
from strongroom_runtime.policy import Acl

# (acl, path of the mount, message): returns what may be shown of it.
Show = Callable[[Acl, str, Any], Any]


def _secret_changes(
    acl: Acl, mount: str, response: kv2_pb2.WatchSecretsResponse
) -> kv2_pb2.WatchSecretsResponse:
    """Leaves out secrets of which the caller may read neither data nor metadata."""
    shown = [
        change
        for change in response.changes
        if any(_reads(acl, f"{mount}{part}/{change.path}") for part in ("data", "metadata"))
    ]
    return kv2_pb2.WatchSecretsResponse(changes=shown, revision=response.revision)


def _lease_events(
    acl: Acl, mount: str, response: lease_pb2.WatchLeasesResponse
) -> lease_pb2.WatchLeasesResponse:
    """Leaves out leases that the caller could neither obtain nor look up."""
    shown = [
        event
        for event in response.events
        if _reads(acl, event.lease_id.rpartition("/")[0]) or _looks_up(acl, event.lease_id)
    ]
    return lease_pb2.WatchLeasesResponse(events=shown, revision=response.revision)


def _log_lines(
    acl: Acl, mount: str, response: observe_pb2.MonitorResponse
) -> observe_pb2.MonitorResponse:
    """Shows all: logs hold nothing secret, and the path alone decides."""
    return response


def _looks_up(acl: Acl, lease_id: str) -> bool:
    path = f"sys/leases/lookup/{lease_id}"
    return acl.decide(path, "update", parameters=dict, wrap_ttl=None).allowed


def _reads(acl: Acl, path: str) -> bool:
    return acl.decide(path, "read", parameters=dict, wrap_ttl=None).allowed


# Every stream says what it shows to whom: one that is not here is not served.
SHOW: dict[str, Show] = {
    "/strongroom.kv.v1.KvV2Service/WatchSecrets": _secret_changes,
    "/strongroom.dbcreds.v1.LeaseService/WatchLeases": _lease_events,
    "/strongroom.sys.v1.ObserveService/Monitor": _log_lines,
}

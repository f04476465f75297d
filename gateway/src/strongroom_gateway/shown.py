"""What the messages of server streams show to whom."""

from collections.abc import Callable
from typing import Any

from strongroom.kv.v1 import kv2_pb2
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


def _reads(acl: Acl, path: str) -> bool:
    return acl.decide(path, "read", parameters=dict, wrap_ttl=None).allowed


# Every stream says what it shows to whom: one that is not here is not served.
SHOW: dict[str, Show] = {"/strongroom.kv.v1.KvV2Service/WatchSecrets": _secret_changes}

"""What streams show to whom: lists of none, of one and of several alike."""

from typing import Any

import pytest

from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import kv2_pb2
from strongroom_gateway.shown import SHOW
from strongroom_runtime.policy import Acl, parse_policy

POLICY = """
path "secret/data/open/*" { capabilities = ["read"] }
path "secret/metadata/seen/*" { capabilities = ["read"] }
path "database/creds/open" { capabilities = ["read"] }
path "sys/leases/lookup/database/creds/seen/*" { capabilities = ["update"] }
"""
ACL = Acl.compile([parse_policy("p", POLICY)], 0)


def secrets(names: list[str]) -> Any:
    changes = [kv2_pb2.SecretChange(path=f"{name}/a") for name in names]
    return kv2_pb2.WatchSecretsResponse(changes=changes, revision=7)


def leases(names: list[str]) -> Any:
    events = [lease_pb2.LeaseEvent(lease_id=f"database/creds/{name}/a") for name in names]
    return lease_pb2.WatchLeasesResponse(events=events, revision=7)


@pytest.mark.parametrize(
    ("method", "message", "field"),
    [
        ("kv.v1.KvV2Service/WatchSecrets", secrets, "changes"),
        ("dbcreds.v1.LeaseService/WatchLeases", leases, "events"),
    ],
)
@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], []),
        (["hidden"], []),
        (["open"], ["open"]),
        (["seen"], ["seen"]),
        (["hidden", "open", "hidden", "seen"], ["open", "seen"]),
    ],
)
def test_what_the_caller_may_not_see_is_left_out(
    method: str, message: Any, field: str, names: list[str], shown: list[str]
) -> None:
    given = message(names)
    before = given.SerializeToString()
    found = SHOW[f"/strongroom.{method}"](ACL, "secret/", given)
    assert list(getattr(found, field)) == list(getattr(message(shown), field))
    assert found.revision == 7
    assert given.SerializeToString() == before  # others are shown it too

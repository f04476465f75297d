"""What policies demand of requests beside their paths."""

from typing import Any

import pytest
from tests.unit.gateway.fakes import Gate, Mounts

from strongroom.kv.v1 import kv2_pb2
from strongroom_gateway.admission import Admission
from strongroom_gateway.call import Call
from strongroom_gateway.contract.routes import RouteTable
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import Kind, ServiceError

ROUTES = RouteTable(kv2_pb2.DESCRIPTOR.services_by_name.values())
LIST = ROUTES.methods["/strongroom.kv.v1.KvV2Service/ListSecrets"]
MOUNT = MountContext("secret/", "kv", "mount-1", "kv_1", {"version": "2"})
CONTEXT = RequestContext("r")
BOUNDED = 'path "secret/metadata/*" { capabilities = ["list"] pagination_limit = 5 }'


async def admitted(query: dict[str, str], policy: str = BOUNDED) -> int | None:
    """Returns the limit with which a list is admitted where a policy bounds lists; None where it is refused."""
    message, _ = LIST.request_plan.decode(b"", {}, query, {"path": "app"})
    call = Call(
        spec=LIST, message=message, path="secret/metadata/app/", mount=MOUNT, token_text="token",
        client_address="127.0.0.1", operation="list", parameters=lambda: dict(query),
    )  # fmt: skip
    gate: Any = Gate(policy=policy)
    mounts: Any = Mounts()
    admission = Admission(gate, mounts, lambda: False)
    identity = await admission.identify(call, CONTEXT)
    try:
        await admission.decide(call, identity, CONTEXT)
    except ServiceError as error:
        assert error.kind is Kind.DENIED
        return None
    return int(message.limit)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        ({"limit": "1"}, 1),
        ({"limit": "5"}, 5),
        ({"limit": "6"}, None),
        ({"limit": "0"}, 5),
        ({"limit": "-1"}, None),
        ({"limit": "-9223372036854775808"}, None),
        ({"limit": ""}, 5),
        ({}, 5),
    ],
)
async def test_a_bound_on_lists_covers_zero_negative_and_absent_limits(
    query: dict[str, str], limit: int | None
) -> None:
    assert await admitted(query) == limit


async def test_a_limit_may_have_to_be_given() -> None:
    policy = BOUNDED.replace("}", 'required_parameters = ["Limit"] }')
    assert await admitted({}, policy) is None
    assert await admitted({"limit": "0"}, policy) == 5


@pytest.mark.parametrize("text", ["five", "5x", "1e0", "9223372036854775808"])
async def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ServiceError, match="limit") as caught:
        await admitted({"limit": text})
    assert caught.value.kind is Kind.INVALID

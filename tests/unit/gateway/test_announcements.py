"""What may make something is in the log before it is begun, and what makes nothing costs one entry in two."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.gateway.fakes import Audit, Gate, Mounts, Rules

from strongroom.transit.v1 import cipher_pb2
from strongroom_gateway.admission import Admission
from strongroom_gateway.call import Call
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.observe.observer import Observer
from strongroom_gateway.pipeline import Pipeline
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.requests import check_right
from strongroom_runtime.telemetry import Telemetry

ROUTES = RouteTable(cipher_pb2.DESCRIPTOR.services_by_name.values())
ENCRYPT = ROUTES.methods["/strongroom.transit.v1.CipherService/Encrypt"]
MOUNT = MountContext("transit/", "transit", "uuid", "transit_1")
CAPABILITIES = 'path "transit/encrypt/orders" { capabilities = [%s] }'


@dataclass
class Keys:
    """Encrypts with keys that are there, and makes those that are not; says what was in the log by then."""

    audit: Audit
    there: bool
    seen: list[tuple[str, int]] = field(default_factory=list)

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        check_right(context, self.there)
        self.seen.append(("used" if self.there else "made", len(self.audit.entries)))
        self.there = True
        return cipher_pb2.EncryptResponse(ciphertext="vault:v1:x", key_version=1)


async def encrypt(keys: Keys, capabilities: str) -> None:
    admission = Admission(Gate(CAPABILITIES % capabilities), Mounts(), lambda: False)  # type: ignore[arg-type]
    pipeline = Pipeline(
        {"transit": keys}, admission, Rules(), keys.audit, None,  # type: ignore
        Observer(Telemetry("gateway"), Metrics()),
    )  # fmt: skip
    await pipeline.handle(
        Call(
            spec=ENCRYPT, message=cipher_pb2.EncryptRequest(name="orders", plaintext=b"x"),
            path="transit/encrypt/orders", mount=MOUNT, token_text="token", client_address="127.0.0.1",
            operation="write", parameters=dict,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("there", "capabilities", "seen"),
    [
        (True, '"update"', [("used", 0)]),
        (True, '"create", "update"', [("used", 0)]),
        (False, '"create", "update"', [("made", 1)]),
        (False, '"create"', [("made", 1)]),
    ],
)
async def test_a_key_is_made_once_the_log_says_so(
    there: bool, capabilities: str, seen: list[tuple[str, int]]
) -> None:
    keys = Keys(Audit(), there)
    await encrypt(keys, capabilities)
    assert keys.seen == seen
    assert [kind for kind, _, _ in keys.audit.entries] == ["request", "response"]


@pytest.mark.parametrize(("there", "capabilities"), [(False, '"update"'), (True, '"create"')])
async def test_who_may_not_is_refused_and_both_entries_say_so(
    there: bool, capabilities: str
) -> None:
    keys = Keys(Audit(), there)
    with pytest.raises(ServiceError) as caught:
        await encrypt(keys, capabilities)
    assert caught.value.kind is Kind.DENIED
    assert keys.seen == []
    assert [kind for kind, _, _ in keys.audit.entries] == ["request", "response"]


async def test_no_key_is_made_while_nothing_can_be_logged() -> None:
    keys = Keys(Audit(broken=True), there=False)
    with pytest.raises(ServiceError, match="no audit device"):
        await encrypt(keys, '"create", "update"')
    assert keys.seen == []
    assert not keys.there

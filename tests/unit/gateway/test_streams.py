"""Streams both ways through the gateway: admission, order, bounds and entries, with fakes around."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.garbage import no_frames_left
from tests.unit.gateway.fakes import ALLOWED, Audit, Gate, Mounts, Rules

from strongroom.transit.v1 import stream_pb2
from strongroom_gateway import streams
from strongroom_gateway.admission import Admission
from strongroom_gateway.call import Call
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.streams import Streams
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import Kind, ServiceError

ROUTES = RouteTable(stream_pb2.DESCRIPTOR.services_by_name.values())
ENCRYPT = ROUTES.methods["/strongroom.transit.v1.TransitStreamService/EncryptStream"]
CIPHER = ROUTES.methods["/strongroom.transit.v1.StreamCipherService/Encrypt"]
MOUNT = MountContext("transit/", "transit", "uuid", "transit_1")
EncryptStreamRequest = stream_pb2.EncryptStreamRequest
EncryptStreamItem = stream_pb2.EncryptStreamItem


class Service:
    """Encrypts by turning texts round."""

    def __init__(self) -> None:
        self.contexts: list[RequestContext] = []
        self.names: list[str] = []
        self.most = self.open = 0

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        self.contexts.append(context)
        self.names.append(request.name)
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0.001)
        self.open -= 1
        response = stream_pb2.EncryptStreamResponse(key_version=1)
        for item in request.items:
            if item.plaintext == b"fail":
                raise ServiceError(Kind.INVALID, "no such key version")
            response.items.add(ciphertext=item.plaintext[::-1].decode(), reference=item.reference)
        return response

    def stream(self, method: str, request: Any, context: RequestContext) -> AsyncGenerator[Any]:
        raise NotImplementedError

    async def duplex(
        self, method: str, requests: AsyncIterator[Any], context: RequestContext
    ) -> AsyncGenerator[Any]:
        self.contexts.append(context)
        async for request in requests:
            yield stream_pb2.StreamCipherServiceEncryptResponse(data=request.data[::-1])


@dataclass
class Bench:
    gate: Gate = field(default_factory=Gate)
    audit: Audit = field(default_factory=Audit)
    service: Service = field(default_factory=Service)
    sealed: bool = False
    mounted: bool = True
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        admission = Admission(self.gate, Mounts(), lambda: self.sealed)  # type: ignore[arg-type]
        self.streams = Streams({"transit": self.service}, admission, self.rules, self.audit)  # type: ignore[arg-type]

    async def check(self) -> None:
        if not self.mounted:
            raise ServiceError(Kind.NOT_FOUND, "the mount was disabled or moved")

    def exchange(
        self,
        spec: Any,
        messages: AsyncIterator[Any],
        first: Any,
        wrap_ttl: int | None = None,
    ) -> AsyncGenerator[Any]:
        call = Call(
            spec=spec, message=first, path="transit/encrypt/orders", mount=MOUNT,
            token_text="token", client_address="127.0.0.1", operation="update",
            parameters=dict, wrap_ttl=wrap_ttl,
        )  # fmt: skip
        return self.streams.exchange(call, messages, self.check)

    async def encrypt(
        self,
        batches: Sequence[Any],
        before: Callable[[int], None] | None = None,
        wrap_ttl: int | None = None,
    ) -> list[Any]:
        async def given() -> AsyncGenerator[Any]:
            for number, batch in enumerate(batches):
                if before is not None:
                    before(number)
                yield batch

        answers = []
        async for answer in self.exchange(ENCRYPT, given(), batches[0], wrap_ttl):
            answers.append([item.ciphertext for item in answer.items])
        return answers


def batch(*texts: str, name: str = "", mount: str = "") -> Any:
    items = [EncryptStreamItem(plaintext=t.encode(), reference=t) for t in texts]
    return EncryptStreamRequest(mount=mount, name=name, items=items)


def first(*texts: str) -> Any:
    return batch(*texts, name="orders", mount="transit")


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_batches_are_answered_in_order_with_both_entries_before(bench: Bench) -> None:
    batches = [first("ab", "cd"), *(batch(f"{n}x") for n in range(2, 50))]
    answers = await bench.encrypt(batches)
    assert answers == [["ba", "dc"], *([f"x{n}"[:1] + str(n)[::-1]] for n in range(2, 50))]
    assert bench.service.names == ["orders"] * 49
    assert 1 < bench.service.most <= 4
    kinds = [kind for kind, _, _ in bench.audit.entries]
    assert kinds == ["request", "response"] * 49
    _, request, _ = bench.audit.entries[0]
    assert request == {
        "message": 1,
        "items": {"count": 2, "plaintext": ["YWI=", "Y2Q="], "reference": ["ab", "cd"]},
    }
    assert bench.audit.entries[1][1] == {
        "key_version": 1,
        "items": {"count": 2, "ciphertext": ["ba", "dc"], "reference": ["ab", "cd"]},
    }


@pytest.mark.parametrize("taken", ["token", "policy", "seal", "mount"])
async def test_what_was_taken_away_ends_the_stream_with_the_next_batch(
    bench: Bench, taken: str
) -> None:
    def before(number: int) -> None:
        if number == 3:
            bench.gate.revoked = taken == "token"
            bench.gate.policy = "" if taken == "policy" else ALLOWED
            bench.sealed = taken == "seal"
            bench.mounted = taken != "mount"

    with pytest.raises(ServiceError) as caught:
        await bench.encrypt([first("a"), batch("b"), batch("c"), batch("d"), batch("e")], before)
    kinds = {"seal": Kind.SEALED, "mount": Kind.NOT_FOUND}
    assert caught.value.kind is kinds.get(taken, Kind.DENIED)
    assert len(bench.service.names) == 3
    assert any(error for _, _, error in bench.audit.entries)


async def test_a_stream_on_which_nothing_happens_ends_when_the_token_is_revoked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SECONDS", 0.05)

    async def given() -> AsyncGenerator[Any]:
        yield first("a")
        bench.gate.revoked = True
        await asyncio.sleep(60)

    with pytest.raises(ServiceError) as caught:
        async for _ in bench.exchange(ENCRYPT, given(), first("a")):
            pass
    assert caught.value.kind is Kind.DENIED


async def test_each_batch_is_held_to_the_parameters_that_a_policy_allows(bench: Bench) -> None:
    bench.gate.policy = (
        'path "transit/encrypt/orders" { capabilities = ["update"]'
        " denied_parameters = { key_version = [2] } }"
    )
    later = batch("b")
    later.key_version = 2
    with pytest.raises(ServiceError) as caught:
        await bench.encrypt([first("a"), later])
    assert caught.value.kind is Kind.DENIED
    assert len(bench.service.names) == 1


async def test_a_refused_start_is_audited_and_reaches_no_service(bench: Bench) -> None:
    bench.gate.policy = ""
    with pytest.raises(ServiceError):
        await bench.encrypt([first("a")])
    bench.gate.policy, bench.gate.limited = ALLOWED, True
    with pytest.raises(ServiceError) as caught:
        await bench.encrypt([first("a")])
    assert caught.value.kind is Kind.INVALID
    assert not bench.service.names
    assert [e for _, _, e in bench.audit.entries][::2] == [
        "permission denied",
        "a token with a limited number of uses cannot open a stream",
    ]


async def test_later_batches_cannot_name_another_key_or_mount(bench: Bench) -> None:
    for other in (batch("b", name="payroll"), batch("b", mount="other")):
        with pytest.raises(ServiceError) as caught:
            await bench.encrypt([first("a"), other])
        assert caught.value.kind is Kind.INVALID
    assert await bench.encrypt([first("a"), first("b")]) == [["a"], ["b"]]


async def test_no_results_leave_without_their_entries(bench: Bench) -> None:
    def before(number: int) -> None:
        bench.audit.broken = number == 1

    answers = bench.encrypt([first("a"), batch("b")], before)
    with pytest.raises(ServiceError) as caught:
        await answers
    assert caught.value.kind is Kind.INTERNAL


async def test_messages_after_the_first_wait_for_their_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SECONDS", 0.05)
    bench.rules.waits = [0, 3600, 3600]
    answers = await bench.encrypt([first("a"), batch("b"), batch("c")])
    assert answers == [["a"], ["b"], ["c"]]
    assert bench.rules.turns == 4


async def test_a_message_that_waits_is_admitted_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SECONDS", 0.05)
    bench.rules.waits = [3600] * 1000
    answers = asyncio.create_task(bench.encrypt([first("a"), batch("b")]))
    while bench.rules.turns < 2:
        await asyncio.sleep(0.01)
    bench.gate.revoked = True
    with pytest.raises(ServiceError) as caught:
        await answers
    assert caught.value.kind is Kind.DENIED
    assert bench.service.names == ["orders"]


async def test_what_is_wrong_with_a_batch_ends_the_stream_and_is_audited(bench: Bench) -> None:
    with pytest.raises(ServiceError) as caught:
        await bench.encrypt([first("a"), batch("fail"), batch("c")])
    assert caught.value.message == "no such key version"
    assert "no such key version" in [e for _, _, e in bench.audit.entries]


async def test_a_bug_ends_the_stream(bench: Bench) -> None:
    def broken(number: int) -> None:
        if number:
            raise LookupError

    async with asyncio.timeout(60):
        with pytest.raises(LookupError):
            await bench.encrypt([first("a"), batch("b")], broken)


async def test_what_breaks_a_stream_leaves_nothing_in_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SECONDS", 0.05)

    async def then_nothing(message: Any) -> AsyncGenerator[Any]:
        yield message
        bench.sealed = True
        await asyncio.Event().wait()

    def refused(number: int) -> None:
        if number:
            raise ServiceError(Kind.TOO_LARGE, "a message of a stream may have at most 4 MiB")

    with no_frames_left():
        with contextlib.suppress(ServiceError):
            await bench.encrypt([first("a"), batch("fail"), batch("c")])
        with contextlib.suppress(ServiceError):
            await bench.encrypt([first("a"), batch("b")], refused)
        piece = stream_pb2.StreamCipherServiceEncryptRequest(mount="transit", name="orders")
        for spec, message in ((ENCRYPT, first("a")), (CIPHER, piece)):
            bench.sealed = False
            with contextlib.suppress(ServiceError):
                async for _ in bench.exchange(spec, then_nothing(message), message):
                    pass
            assert bench.sealed


async def test_messages_of_a_stream_with_state_stand_in_entries_before_they_go_on(
    bench: Bench,
) -> None:
    async def given() -> AsyncGenerator[Any]:
        for number in range(3):
            assert len([e for e in bench.audit.entries if e[0] == "request"]) == number
            yield stream_pb2.StreamCipherServiceEncryptRequest(
                mount="transit" if not number else "", name="orders", data=b"ab"
            )

    message = stream_pb2.StreamCipherServiceEncryptRequest(mount="transit", name="orders")
    answers = [a.data async for a in bench.exchange(CIPHER, given(), message)]
    assert answers == [b"ba"] * 3
    assert [(kind, data) for kind, data, _ in bench.audit.entries] == [
        *[("request", {"message": 1, "data": "YWI="}), ("response", {"data": "YmE="})],
        *[("request", {"message": 2, "data": "YWI="}), ("response", {"data": "YmE="})],
        *[("request", {"message": 3, "data": "YWI="}), ("response", {"data": "YmE="})],
        ("response", {"requests": 3, "responses": 3}),
    ]


async def test_a_stream_with_state_ends_when_the_token_is_revoked(bench: Bench) -> None:
    async def given() -> AsyncGenerator[Any]:
        for number in range(3):
            bench.gate.revoked = number == 2
            yield stream_pb2.StreamCipherServiceEncryptRequest(data=b"ab")

    message = stream_pb2.StreamCipherServiceEncryptRequest(mount="transit", name="orders")
    answers = []
    with pytest.raises(ServiceError) as caught:
        async for answer in bench.exchange(CIPHER, given(), message):
            answers.append(answer.data)
    assert (caught.value.kind, len(answers)) == (Kind.DENIED, 2)
    assert bench.audit.entries[-1][2] == "permission denied"


async def test_a_policy_that_demands_wrapping_opens_no_stream() -> None:
    """Messages of streams are never wrapped: that a client asks for it must not be enough."""
    wrapped = ALLOWED.replace("}", 'min_wrapping_ttl = "1m" }')
    bench = Bench(Gate(policy=wrapped))
    with pytest.raises(ServiceError) as caught:
        await bench.encrypt([first("a")])
    assert caught.value.kind is Kind.DENIED
    with pytest.raises(ServiceError) as caught:
        await bench.encrypt([first("a")], wrap_ttl=60)
    assert caught.value.kind is Kind.INVALID
    assert not bench.service.names

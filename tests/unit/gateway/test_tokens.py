"""What the gateway keeps of tokens, and until when."""

import asyncio
from typing import Any

import pytest

from strongroom.auth.v1 import gate_pb2
from strongroom_gateway import tokens
from strongroom_gateway.tokens import TokenGate
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.policy import Policy, parse_policy, parsed

CONTEXT = RequestContext("r")


class View:
    """A prefix below which nothing changes."""

    live = True
    started = 0
    generation = 0

    def certain(self) -> bool:
        return True

    def listen(self, listener: object) -> None:
        """Has nothing to tell."""


class Auth:
    """Knows one token, and takes its time to say so."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.asked = 0
        self.left = 60.0
        self.display_name = ""

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        self.asked += 1
        answer = gate_pb2.ResolveTokenResponse(
            id="id",
            policies=["p"],
            cacheable=True,
            seconds_left=self.left,
            display_name=self.display_name,
        )
        self._clock.advance(5)  # on its way
        return answer


async def test_a_kept_token_ends_whatever_the_machines_clock_says() -> None:
    clock = ManualClock()
    auth = Auth(clock)
    gate = TokenGate(auth, View(), clock)  # type: ignore[arg-type]
    await gate.resolve("token", "127.0.0.1", CONTEXT)
    for step in (600.0, -1200.0):
        clock._now += step
        await gate.resolve("token", "127.0.0.1", CONTEXT)
    assert auth.asked == 1
    # The way of the answer counts: it ends no later than the auth service says.
    clock.advance(54)
    await gate.resolve("token", "127.0.0.1", CONTEXT)
    clock.advance(1)
    with pytest.raises(ServiceError):
        await gate.resolve("token", "127.0.0.1", CONTEXT)


class Policies:
    """Knows one policy, which ends."""

    def __init__(self, clock: ManualClock, left: float, now: float, end: str = "") -> None:
        self._clock = clock
        self.left = left
        self.asked = 0
        self._ahead = now - clock.monotonic()
        self._text = f'path "a" {{ capabilities = ["read"] {end} }}'

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        self.asked += 1
        now = self._clock.monotonic() + self._ahead
        answer = gate_pb2.ResolvePoliciesResponse(seconds_left=self.left, now=now)
        if "p" in request.names:
            answer.texts["p"] = self._text
        self._clock.advance(5)  # on its way
        return answer


async def test_policies_are_kept_until_the_first_of_them_ends() -> None:
    clock = ManualClock()
    policies = Policies(clock, 60.0, 1e9)
    gate = TokenGate(policies, View(), clock)  # type: ignore[arg-type]
    kept = await gate.acl(("p",), CONTEXT)
    for step in (600.0, -1200.0):
        clock._now += step  # of the machine
        assert await gate.acl(("p",), CONTEXT) is kept
    clock.advance(54)
    assert await gate.acl(("p",), CONTEXT) is kept
    clock.advance(1)
    policies.left = 0.0
    assert await gate.acl(("p",), CONTEXT) is not kept
    clock.advance(1e9)
    await gate.acl(("p",), CONTEXT)
    assert policies.asked == 2


async def test_a_long_policy_is_read_once_for_all_who_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, read = ManualClock(), 0

    def counted(name: str, text: str) -> Policy:
        nonlocal read
        read += 1
        return parse_policy(name, text)

    monkeypatch.setattr(parsed, "parse_policy", counted)
    policies = Policies(clock, 0.0, 1e9, end="#" * 20_000 + "\n")
    gate = TokenGate(policies, View(), clock)  # type: ignore[arg-type]
    first, *others = await asyncio.gather(*(gate.acl(("p",), CONTEXT) for _ in range(5)))
    assert first.capabilities("a") == ["read"]
    assert all(each is first for each in others)
    assert read == 1


async def test_a_policy_that_is_missing_allows_nothing_and_takes_nothing_from_others() -> None:
    clock = ManualClock()
    gate = TokenGate(Policies(clock, 0.0, 1e9), View(), clock)  # type: ignore[arg-type]
    for named in (("gone",), ("gone", "p"), ("p",)):
        # The auth service knows `p` alone, which is asked for or not.
        acl = await gate.acl(named, CONTEXT)
        assert acl.decide("a", "read").allowed is ("p" in named)
        assert not acl.decide("b", "read").allowed


@pytest.mark.parametrize("policy_left", [0.0, 900.0])
async def test_policies_are_kept_until_the_first_path_in_them_ends(policy_left: float) -> None:
    clock = ManualClock()
    # The time is that of the auth service, which is far behind this machine's.
    policies = Policies(clock, policy_left, 1e9, f"expiration = {10**9 + 60}")
    gate = TokenGate(policies, View(), clock)  # type: ignore[arg-type]
    kept = await gate.acl(("p",), CONTEXT)
    assert kept.decide("a", "read").allowed
    clock.advance(54)
    assert await gate.acl(("p",), CONTEXT) is kept
    clock.advance(1)
    ended = await gate.acl(("p",), CONTEXT)
    assert not ended.decide("a", "read").allowed
    clock.advance(600)
    assert await gate.acl(("p",), CONTEXT) is ended
    assert policies.asked == 2


async def test_a_kept_token_without_an_end_does_not_end() -> None:
    clock = ManualClock()
    auth = Auth(clock)
    auth.left = 0.0
    gate = TokenGate(auth, View(), clock)  # type: ignore[arg-type]
    for _ in range(2):
        await gate.resolve("token", "127.0.0.1", CONTEXT)
        clock.advance(1e9)
    assert auth.asked == 1


async def test_tokens_take_no_more_memory_than_is_meant_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who makes tokens says what they are called."""
    monkeypatch.setattr(tokens, "_TOKENS_BYTES", 100_000)
    clock = ManualClock()
    auth = Auth(clock)
    auth.left = 100_000.0
    gate = TokenGate(auth, View(), clock)  # type: ignore[arg-type]

    async def asked(names: list[str]) -> int:
        before = auth.asked
        for name in names:
            await gate.resolve(name, "127.0.0.1", CONTEXT)
        return auth.asked - before

    names = [f"t{number}" for number in range(20)]
    assert await asked(names) == 20
    assert await asked(names) == 0
    auth.display_name = "a" * 10_000
    assert await asked([f"long{number}" for number in range(10)]) == 10
    assert await asked([f"long{number}" for number in range(6, 10)]) == 0
    assert await asked(names) == 20

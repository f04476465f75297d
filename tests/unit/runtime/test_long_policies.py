"""Policies that take long to read."""

import threading

import pytest

from strongroom_runtime.long_policies import acl_of, are_long
from strongroom_runtime.policy import Acl, ParsedPolicies, PolicyError, parse_policy, parsed


def text(capability: str) -> str:
    return f'path "a" {{ capabilities = ["{capability}"] }}'


async def test_long_policies_are_read_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of a megabyte takes seconds, in which nobody would be answered."""
    used: list[threading.Thread] = []

    def noted(work: object) -> object:
        def run(*arguments: object) -> object:
            used.append(threading.current_thread())
            return work(*arguments)  # type: ignore[operator]

        return run

    monkeypatch.setattr(parsed, "parse_policy", noted(parse_policy))
    monkeypatch.setattr(Acl, "compile", noted(Acl.compile))
    policies, here = ParsedPolicies(), threading.current_thread()
    long = "\n".join(text("read").replace('"a"', f'"a{n}"') for n in range(1_000))
    assert are_long([long])
    assert not are_long([text("read")])
    acl = await acl_of({"short": text("list"), "long": long}, policies, 0.0)
    assert (acl.capabilities("a7"), acl.capabilities("a")) == (["read"], ["list"])
    assert len(used) == 3
    assert here not in used
    assert policies.parse("long", long) is policies.parse("long", long)
    assert len(used) == 3  # it is kept
    assert (await acl_of({"short": text("list")}, policies, 0.0)).capabilities("a") == ["list"]
    assert used[3:] == [here]
    with pytest.raises(PolicyError):
        await acl_of({"long": long + "{"}, policies, 0.0)

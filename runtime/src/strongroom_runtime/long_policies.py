"""Policies that take long to read are read in a thread, so that others are answered meanwhile."""

import asyncio
from collections.abc import Iterable, Mapping

from strongroom_runtime.policy import Acl, ParsedPolicies, Policy, sized_policy

_LONG_CHARACTERS = 16 << 10  # some 30 ms


def are_long(texts: Iterable[str]) -> bool:
    """Returns whether it takes so long to read policies that others should not wait for it."""
    return sum(map(len, texts)) > _LONG_CHARACTERS


async def acl_of(texts: Mapping[str, str], parsed: ParsedPolicies, now: float) -> Acl:
    """Returns what policies allow together.

    Args:
        texts: by name.
        parsed: what is known of them; what is not is added.
        now: the time.

    Raises:
        PolicyError: one of them is none.
    """
    if not are_long(texts.values()):
        return _compiled([parsed.parse(name, text) for name, text in texts.items()], now)
    policies = []
    for name, text in texts.items():
        policy = parsed.known(name, text)
        if policy is None:
            policy = parsed.keep(name, text, *await asyncio.to_thread(sized_policy, name, text))
        policies.append(policy)
    return await asyncio.to_thread(_compiled, policies, now)


def _compiled(policies: Iterable[Policy], now: float) -> Acl:
    return Acl.compile((policy.render({}) for policy in policies), now)

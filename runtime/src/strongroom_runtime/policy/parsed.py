"""Policies that were parsed, kept for the next time."""

import sys
from collections import OrderedDict

from strongroom_runtime.policy.model import Policy, Rule
from strongroom_runtime.policy.rules import parse_policy

_MAX_BYTES = 32 << 20  # some 4,500 usual policies, with a dozen paths each
_LARGEST_SHARE = 4  # of all that is kept: one beyond it would push out nearly everything else
_ENTRY_BYTES = 250  # of the table, and of what finds a policy in it


class ParsedPolicies:
    """Parses a text once as long as it is in use. What is kept is found by the text itself, so it is never stale.

    Args:
        most: how many bytes are kept. A policy takes 3 to 40 times its text, by what it says.
    """

    def __init__(self, most: int = _MAX_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, str], tuple[Policy, int]] = OrderedDict()
        self._held = 0

    def parse(self, name: str, text: str) -> Policy:
        """Returns the policy that a text describes.

        Raises:
            PolicyError: as `parse_policy`.
        """
        return self.known(name, text) or self.keep(name, text, *sized_policy(name, text))

    def known(self, name: str, text: str) -> Policy | None:
        """Returns the policy of a text that is kept."""
        known = self._kept.get((name, text))
        if known is None:
            return None
        self._kept.move_to_end((name, text))
        return known[0]

    def keep(self, name: str, text: str, policy: Policy, size: int) -> Policy:
        """Keeps the policy of a text, if it is not too large; returns it."""
        if size <= self._most // _LARGEST_SHARE and (name, text) not in self._kept:
            self._kept[name, text] = policy, size
            self._held += size
        while self._held > self._most:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._held -= dropped
        return policy


def sized_policy(name: str, text: str) -> tuple[Policy, int]:
    """Returns the policy of a text, and about how many bytes it takes.

    Raises:
        PolicyError: as `parse_policy`.
    """
    policy = parse_policy(name, text)
    return policy, _size_of(name, text, policy) + _ENTRY_BYTES


def _size_of(*values: object) -> int:
    """Returns about how many bytes objects take with all that they hold, what several of them hold once."""
    size, left, seen = 0, list(values), set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        size += sys.getsizeof(value)
        if isinstance(value, dict):
            left += value.keys()
            left += value.values()
        elif isinstance(value, tuple | list | frozenset):
            left += value
        elif isinstance(value, Policy | Rule):
            left += [getattr(value, name) for name in value.__slots__]
    return size

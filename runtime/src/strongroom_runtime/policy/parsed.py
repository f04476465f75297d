"""Policies that were parsed, kept for the next time."""

from collections import OrderedDict

from strongroom_runtime.policy.model import Policy
from strongroom_runtime.policy.rules import parse_policy

_MAX_CHARACTERS = 8 << 20


class ParsedPolicies:
    """Parses a text once as long as it is in use. What is kept is found by the text itself, so it is never stale."""

    def __init__(self, most: int = _MAX_CHARACTERS) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, str], Policy] = OrderedDict()
        self._characters = 0

    def parse(self, name: str, text: str) -> Policy:
        """Returns the policy that a text describes.

        Raises:
            PolicyError: as `parse_policy`.
        """
        known = self._kept.get((name, text))
        if known is not None:
            self._kept.move_to_end((name, text))
            return known
        policy = parse_policy(name, text)
        self._kept[name, text] = policy
        self._characters += len(text) + 100  # small ones count as well
        while self._characters > self._most:
            (_, dropped), _ = self._kept.popitem(last=False)
            self._characters -= len(dropped) + 100
        return policy

"""Rules whose paths have `+` for a whole segment, found without a walk over all of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from strongroom_runtime.policy.model import Rule, has_plus

Rank = tuple[int, bool, int, int, str]
Ranked = tuple[Rank, Rule]


def rank(path: str) -> Rank:
    """Returns what makes one wildcard rule go before another: the higher, the more specific.

    In this order: a later first wildcard, no `*` at the end, fewer `+`, greater length, the alphabet.
    """
    star = path.endswith("*")
    first = path.index("+") if has_plus(path) else len(path) - star
    return (first, not star, -path.split("/").count("+"), len(path), path)


@dataclass(slots=True)
class _Node:
    """What is known of the rules whose segments so far are those on the way here."""

    children: dict[str, "_Node"] = field(default_factory=dict)
    plus: "_Node | None" = None
    here: Ranked | None = None
    prefixes: list[tuple[str, Ranked]] = field(default_factory=list)


class SegmentRules:
    """A tree of rules by segments. A look-up takes the branches that match, not all rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = list(rules)
        self._root = _Node()
        for rule in self.rules:
            self._add(rule)

    def best(self, path: str, best: Ranked | None = None) -> Ranked | None:
        """Returns the most specific rule that matches a path, or another that is more specific."""
        segments = path.split("/")
        nodes = [self._root]
        for segment in segments:
            following: list[_Node] = []
            for node in nodes:
                for prefix, found in node.prefixes:
                    if segment.startswith(prefix) and (best is None or found[0] > best[0]):
                        best = found
                child = node.children.get(segment)
                if child is not None:
                    following.append(child)
                if node.plus is not None:
                    following.append(node.plus)
            nodes = following
        for node in nodes:
            if node.here is not None and (best is None or node.here[0] > best[0]):
                best = node.here
        return best

    def _add(self, rule: Rule) -> None:
        ranked = (rank(rule.path), rule)
        *segments, last = rule.path.removesuffix("*").split("/")
        node = self._root
        for segment in segments if rule.is_prefix else [*segments, last]:
            node = _next(node, segment)
        if rule.is_prefix:
            node.prefixes.append((last, ranked))
        else:
            node.here = ranked


def _next(node: _Node, segment: str) -> _Node:
    if segment != "+":
        return node.children.setdefault(segment, _Node())
    if node.plus is None:
        node.plus = _Node()
    return node.plus

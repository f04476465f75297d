"""Decisions: what the policies of a token, taken together, allow.

Evaluation as in Vault ("Policies", section "Priority matching"):

1. A rule for exactly the path. A list also tries the path without its trailing slash.
2. Else, of the longest prefix rule (`…*`) and all rules with `+` that match: the one whose first wildcard comes
   later; then one without `*`; then the one with fewer `+`; then the longer; then the lexicographically larger.
3. A list repeats step 2 without its trailing slash.

One rule applies. Rules with the same path in several policies are merged: capabilities are united, and a deny in any
leaves nothing but the deny.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from strongroom_runtime.policy.model import CAPABILITIES, Parameters, Policy, Rule
from strongroom_runtime.policy.parameters import parameters_allowed

ParametersSource = Callable[[], Mapping[str, object]]

_LISTS = ("list", "scan")
_WITH_PARAMETERS = frozenset({"write", "read", "create", "update", "patch"})


@dataclass(frozen=True, slots=True)
class Decision:
    """What a request may do.

    Args:
        allowed: the operation may run; for a create-or-update, at least one of the two.
        may_create: a create-or-update may create.
        may_update: a create-or-update may update.
        sudo: root-protected paths are open as well.
        pagination_limit: the most entries that a list may give; 0 for no bound.
    """

    allowed: bool
    may_create: bool = False
    may_update: bool = False
    sudo: bool = False
    pagination_limit: int = 0


_DENIED = Decision(False)
_ROOT = Decision(True, True, True, True)


class Acl:
    """The rules of several policies, ready to decide."""

    def __init__(self, exact: Mapping[str, Rule], wildcard: Iterable[Rule], *, root: bool) -> None:
        self._root = root
        self._exact = exact
        rules = list(wildcard)
        self._prefixes = {r.path[:-1]: r for r in rules if r.is_prefix and not r.has_plus}
        self._lengths = sorted({len(p) for p in self._prefixes}, reverse=True)
        self._plus = [(tuple(r.path.rstrip("*").split("/")), r) for r in rules if r.has_plus]

    @classmethod
    def compile(cls, policies: Iterable[Policy]) -> "Acl":
        """Returns the decisions of policies together. A policy named `root` allows everything."""
        merged: dict[str, Rule] = {}
        root = False
        for policy in policies:
            root = root or policy.name == "root"
            for rule in policy.rules:
                known = merged.get(rule.path)
                merged[rule.path] = rule if known is None else _merge(known, rule)
        exact = {p: r for p, r in merged.items() if not (r.is_prefix or r.has_plus)}
        return cls(exact, (r for p, r in merged.items() if p not in exact), root=root)

    @property
    def root(self) -> bool:
        """Whether everything is allowed."""
        return self._root

    def decide(
        self,
        path: str,
        operation: str,
        *,
        parameters: ParametersSource | None = None,
        wrap_ttl: int | None = None,
    ) -> Decision:
        """Returns what a request may do.

        Args:
            path: canonical; a list's ends with a slash.
            operation: a capability, or `write` where the service tells create from update.
            parameters: gives the request's parameters; called only where a rule speaks of them.
            wrap_ttl: seconds for which the answer is to be wrapped; None where it is not.
        """
        if self._root:
            return _ROOT
        rule = self._find(path, operation in _LISTS)
        if rule is None or "deny" in rule.capabilities:
            return _DENIED
        create = "create" in rule.capabilities and operation in ("write", "create")
        update = "update" in rule.capabilities and operation in ("write", "update")
        allowed = create or update if operation == "write" else operation in rule.capabilities
        if not allowed or not _wrapping_allowed(rule, wrap_ttl):
            return _DENIED
        if operation in _WITH_PARAMETERS and not parameters_allowed(rule, parameters):
            return _DENIED
        return Decision(True, create, update, "sudo" in rule.capabilities, rule.pagination_limit)

    def capabilities(self, path: str) -> list[str]:
        """Returns what may be done with a path, in Vault's order: `root`, `deny`, or capabilities."""
        if self._root:
            return ["root"]
        rule = self._find(path, path.endswith("/"))
        if rule is None or not rule.capabilities or "deny" in rule.capabilities:
            return ["deny"]
        return [c for c in CAPABILITIES if c in rule.capabilities]

    def rules(self) -> list[Rule]:
        """Returns all rules, merged."""
        return [*self._exact.values(), *self._prefixes.values(), *(r for _, r in self._plus)]

    def any_below(self, prefix: str) -> bool:
        """Whether some rule grants anything on or below a path, such as a mount's."""
        if self._root:
            return True
        granting = (r for r in self.rules() if r.capabilities and "deny" not in r.capabilities)
        return any(_may_lie_below(rule, prefix) for rule in granting)

    def _find(self, path: str, is_list: bool) -> Rule | None:
        bare = path.rstrip("/") if is_list and path.endswith("/") else None
        rule = self._exact.get(path)
        if rule is None and bare is not None:
            rule = self._exact.get(bare)
        if rule is None:
            rule = self._wildcard(path)
        if rule is None and bare is not None:
            rule = self._wildcard(bare)
        return rule

    def _wildcard(self, path: str) -> Rule | None:
        best: Rule | None = None
        for length in self._lengths:
            if length <= len(path):
                best = self._prefixes.get(path[:length])
                if best is not None:
                    break
        if self._plus:
            segments = path.split("/")
            matching = [rule for parts, rule in self._plus if _plus_matches(parts, rule, segments)]
            candidates = matching if best is None else [best, *matching]
            best = max(candidates, key=_priority, default=None)
        return best


def _priority(rule: Rule) -> tuple[int, bool, int, int, str]:
    stars = rule.path.find("*")
    plus = next(
        (sum(len(s) + 1 for s in rule.path.split("/")[:n]) for n, s in _segments(rule) if s == "+"),
        -1,
    )
    first = min(place for place in (stars, plus) if place >= 0)
    pluses = sum(segment == "+" for _, segment in _segments(rule))
    return (first, not rule.is_prefix, -pluses, len(rule.path), rule.path)


def _segments(rule: Rule) -> list[tuple[int, str]]:
    return list(enumerate(rule.path.split("/")))


def _plus_matches(parts: tuple[str, ...], rule: Rule, segments: list[str]) -> bool:
    if rule.is_prefix:
        if len(segments) < len(parts):
            return False
        last = len(parts) - 1
        # What follows the last slash of the pattern is a prefix; all before it are whole segments.
        if not "/".join(segments[last:]).startswith(parts[last]):
            return False
        return all(p in ("+", s) for p, s in zip(parts[:last], segments, strict=False))
    return len(segments) == len(parts) and all(
        p in ("+", s) for p, s in zip(parts, segments, strict=True)
    )


def _may_lie_below(rule: Rule, prefix: str) -> bool:
    wanted = prefix.rstrip("/").split("/")
    given = rule.path.rstrip("*").split("/")
    for position, segment in enumerate(wanted):
        if position >= len(given):
            return rule.is_prefix
        here = given[position]
        if rule.is_prefix and position == len(given) - 1:
            return segment.startswith(here)
        if here not in ("+", segment):
            return False
    return True


def _wrapping_allowed(rule: Rule, wrap_ttl: int | None) -> bool:
    if not rule.min_wrapping_ttl and not rule.max_wrapping_ttl:
        return True
    if wrap_ttl is None or wrap_ttl < rule.min_wrapping_ttl:
        return False
    return not rule.max_wrapping_ttl or wrap_ttl <= rule.max_wrapping_ttl


def _merge(one: Rule, other: Rule) -> Rule:
    capabilities = one.capabilities | other.capabilities
    return replace(
        one,
        capabilities=frozenset({"deny"}) if "deny" in capabilities else capabilities,
        allowed_parameters=_merge_lists(one.allowed_parameters, other.allowed_parameters),
        denied_parameters=_merge_lists(one.denied_parameters, other.denied_parameters),
        required_parameters=one.required_parameters | other.required_parameters,
        min_wrapping_ttl=_smaller(one.min_wrapping_ttl, other.min_wrapping_ttl),
        max_wrapping_ttl=_smaller(one.max_wrapping_ttl, other.max_wrapping_ttl),
        pagination_limit=_smaller(one.pagination_limit, other.pagination_limit),
    )


def _smaller(one: int, other: int) -> int:
    """Returns the smaller of two bounds, where 0 means none."""
    return min(one, other) if one and other else one or other


def _merge_lists(one: Parameters | None, other: Parameters | None) -> Parameters | None:
    """Returns both lists for each parameter; an empty list, which stands for any value, swallows the other."""
    if one is None or other is None:
        return one if other is None else other
    merged = dict(one)
    for name, values in other.items():
        known = merged.get(name)
        if known is None:
            merged[name] = values
        else:
            merged[name] = (*known, *values) if known and values else ()
    return merged

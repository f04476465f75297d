"""Decisions: what the policies of a token, taken together, allow.

Evaluation as in Vault ("Policies", section "Priority matching"):

1. A rule for exactly the path. A list also tries the path without its trailing slash.
2. Else, of the longest prefix rule (`…*`) and all rules with `+` that match: the one whose first wildcard comes
   later; then one without `*`; then the one with fewer `+`; then the longer; then the lexicographically larger.
3. A list repeats step 2 without its trailing slash.

One rule applies. Rules with the same path in several policies are merged: capabilities are united, and a deny in any
leaves nothing but the deny. A rule that has ended takes no part in this: a less specific one may apply.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from strongroom_runtime.policy.model import Parameters, Policy, Rule, united
from strongroom_runtime.policy.parameters import parameters_allowed
from strongroom_runtime.policy.wildcards import Ranked, SegmentRules, rank

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
    """The rules of several policies, ready to decide.

    Args:
        exact: rules for single paths.
        wildcard: all others.
        root: whether everything is allowed.
        ends: when the first of the rules ends, by the clock they were compiled by; from then on this decides wrongly.
    """

    def __init__(
        self,
        exact: Mapping[str, Rule],
        wildcard: Iterable[Rule],
        *,
        root: bool,
        ends: float = math.inf,
    ) -> None:
        self.ends = ends
        self._root = root
        self._exact = exact
        rules = list(wildcard)
        plain = [rule for rule in rules if not rule.has_plus]
        self._prefixes: dict[str, Ranked] = {r.path[:-1]: (rank(r.path), r) for r in plain}
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._segments = SegmentRules(rule for rule in rules if rule.has_plus)

    @classmethod
    def compile(cls, policies: Iterable[Policy], now: float) -> "Acl":
        """Returns the decisions of policies together, of what has not ended by now.

        A policy named `root` allows everything.
        """
        merged: dict[str, Rule] = {}
        root, ends = False, math.inf
        for policy in policies:
            root = root or policy.name == "root"
            for rule in policy.rules:
                if rule.expires <= now:
                    continue
                ends = min(ends, rule.expires)
                known = merged.get(rule.path)
                merged[rule.path] = rule if known is None else _merge(known, rule)
        exact = {p: r for p, r in merged.items() if not (r.is_prefix or r.has_plus)}
        wildcard = (r for p, r in merged.items() if p not in exact)
        return cls(exact, wildcard, root=root, ends=ends)

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
        if operation in _LISTS and not _limit_given(rule, parameters):
            return _DENIED
        return Decision(True, create, update, "sudo" in rule.capabilities, rule.pagination_limit)

    def capabilities(self, path: str) -> list[str]:
        """Returns what may be done with a path: `root`, `deny`, or capabilities in alphabetical order, as Vault does.

        A path that ends with a slash is judged like a list.
        """
        if self._root:
            return ["root"]
        rule = self._find(path, True)
        return ["deny"] if rule is None or not _grants(rule) else sorted(rule.capabilities)

    def rules(self) -> list[Rule]:
        """Returns all rules, merged."""
        prefixes = (rule for _, rule in self._prefixes.values())
        return [*self._exact.values(), *prefixes, *self._segments.rules]

    def any_below(self, mount: str) -> bool:
        """Whether anything is granted on or below a path, such as a mount's."""
        if self._root:
            return True
        bare = mount.rstrip("/")
        # A rule for all of the mount applies to whatever no rule inside speaks of.
        whole = self._wildcard(bare + "/")
        if whole is not None and _grants(whole):
            return True
        segments = bare.split("/")
        return any(_grants(rule) and _lies_in(rule, segments) for rule in self.rules())

    def _find(self, path: str, is_list: bool) -> Rule | None:
        bare = path[:-1] if is_list and path.endswith("/") else None
        rule = self._exact.get(path)
        if rule is None and bare is not None:
            rule = self._exact.get(bare)
        if rule is None:
            rule = self._wildcard(path)
        if rule is None and bare is not None:
            rule = self._wildcard(bare)
        return rule

    def _wildcard(self, path: str) -> Rule | None:
        best: Ranked | None = None
        for length in self._lengths:
            # Where the path is shorter, this looks for all of it, which is right as well.
            best = self._prefixes.get(path[:length])
            if best is not None:
                break
        if self._segments.rules:
            best = self._segments.best(path, best)
        return None if best is None else best[1]


def _grants(rule: Rule) -> bool:
    return bool(rule.capabilities) and "deny" not in rule.capabilities


def _lies_in(rule: Rule, segments: list[str]) -> bool:
    """Whether a rule speaks of a path, or of things inside it alone."""
    parts = rule.path.removesuffix("*").split("/")
    if len(parts) < len(segments) or (len(parts) == len(segments) and rule.is_prefix):
        return False
    return all(part in ("+", segment) for part, segment in zip(parts, segments, strict=False))


def _wrapping_allowed(rule: Rule, wrap_ttl: int | None) -> bool:
    if not rule.min_wrapping_ttl and not rule.max_wrapping_ttl:
        return True
    if wrap_ttl is None or wrap_ttl < rule.min_wrapping_ttl:
        return False
    return not rule.max_wrapping_ttl or wrap_ttl <= rule.max_wrapping_ttl


def _limit_given(rule: Rule, parameters: ParametersSource | None) -> bool:
    """Returns whether a list says how much it wants, where a rule that bounds lists requires that it does."""
    if not rule.pagination_limit or "limit" not in rule.required_parameters:
        return True
    return parameters is not None and "limit" in parameters()


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
        expires=min(one.expires, other.expires),
    )


def _smaller(one: int, other: int) -> int:
    """Returns the smaller of two bounds, where 0 means none."""
    return min(one, other) if one and other else one or other


def _merge_lists(one: Parameters | None, other: Parameters | None) -> Parameters | None:
    """Returns both lists for each parameter; an empty list, which stands for any value, swallows the other."""
    if one is None or other is None:
        return one if other is None else other
    return {
        name: united(one[name], other[name]) if name in one and name in other else values
        for name, values in {**one, **other}.items()
    }

"""The evaluation order, written down as slowly and plainly as possible, to test the real one against."""

import fnmatch
import re
from collections.abc import Mapping

from strongroom_runtime.policy import Policy, Rule
from strongroom_runtime.policy.model import Parameters


def standing(policies: list[Policy], now: float) -> list[Policy]:
    """Returns policies with the rules that have not ended."""
    return [Policy(p.name, tuple(r for r in p.rules if r.expires > now)) for p in policies]


def decide(policies: list[Policy], path: str, operation: str, now: float) -> frozenset[str]:
    """Returns the capabilities of the one rule that applies, after merging; empty for none."""
    policies = standing(policies, now)
    patterns = {rule.path for policy in policies for rule in policy.rules}
    order = [path]
    if operation in ("list", "scan") and path.endswith("/"):
        order.append(path.removesuffix("/"))
    for candidate in order:
        if candidate in patterns and not wild(candidate):
            return united(policies, candidate)
    for candidate in order:
        matching = [p for p in patterns if wild(p) and matches(p, candidate)]
        only_prefix = [p for p in matching if not plus(p)]
        longest = max(only_prefix, key=len, default=None)
        field = [p for p in matching if plus(p)] + ([longest] if longest else [])
        if field:
            return united(policies, max(field, key=rank))
    return frozenset()


def wild(pattern: str) -> bool:
    return pattern.endswith("*") or plus(pattern)


def plus(pattern: str) -> bool:
    return (
        any(part.startswith("+") for part in pattern.split("/")[1:])
        or re.match(r"\+(/|$)", pattern) is not None
    )


def matches(pattern: str, path: str) -> bool:
    parts = [
        "[^/]*" if part == "+" else re.escape(part) for part in pattern.removesuffix("*").split("/")
    ]
    tail = ".*" if pattern.endswith("*") else ""
    return re.fullmatch("/".join(parts) + tail, path, re.DOTALL) is not None


def rank(pattern: str) -> tuple[int, int, int, int, str]:
    parts = pattern.split("/")
    return (
        pattern.find("+") if plus(pattern) else len(pattern) - 1,
        0 if pattern.endswith("*") else 1,
        -parts.count("+"),
        len(pattern),
        pattern,
    )


def united(policies: list[Policy], pattern: str) -> frozenset[str]:
    rules = of(policies, pattern)
    capabilities = frozenset[str]().union(*(r.capabilities for r in rules))
    return frozenset({"deny"}) if "deny" in capabilities else capabilities


def of(policies: list[Policy], pattern: str) -> list[Rule]:
    return [rule for policy in policies for rule in policy.rules if rule.path == pattern]


def constraints_hold(
    rules: list[Rule], operation: str, parameters: Mapping[str, object], wrap_ttl: int | None
) -> bool:
    """Returns whether a request keeps to what all rules for one path say together."""
    least = [rule.min_wrapping_ttl for rule in rules if rule.min_wrapping_ttl]
    most = [rule.max_wrapping_ttl for rule in rules if rule.max_wrapping_ttl]
    if (least or most) and wrap_ttl is None:
        return False
    if wrap_ttl is not None and least and wrap_ttl < min(least):
        return False
    if wrap_ttl is not None and most and wrap_ttl > min(most):
        return False
    if operation not in ("read", "create", "update", "patch"):
        return True
    if any(name not in parameters for rule in rules for name in rule.required_parameters):
        return False
    if not parameters:
        return True
    denied = gathered([rule.denied_parameters for rule in rules])
    allowed = gathered([rule.allowed_parameters for rule in rules])
    for name, value in parameters.items():
        if "*" in denied or among(value, denied.get(name.lower())):
            return False
        if allowed and name.lower() not in allowed and "*" not in allowed:
            return False
        if name.lower() in allowed and not among(value, allowed[name.lower()]):
            return False
    return True


def gathered(maps: list[Parameters | None]) -> dict[str, list[object]]:
    """Returns the lists of each name, one after another; where one is empty, all of them count as empty."""
    result: dict[str, list[object]] = {}
    for name in {name for each in maps for name in each or ()}:
        lists = [each[name] for each in maps if each is not None and name in each]
        result[name] = [] if () in lists else [value for each in lists for value in each]
    return result


def among(value: object, patterns: list[object] | None) -> bool:
    if patterns is None:
        return False
    if not patterns:
        return True
    return any(
        fnmatch.fnmatchcase(value, pattern)
        if isinstance(value, str) and isinstance(pattern, str)
        else type(value) is type(pattern) and value == pattern
        for pattern in patterns
    )

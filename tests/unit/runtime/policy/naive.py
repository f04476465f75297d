"""The evaluation order, written down as slowly and plainly as possible, to test the real one against."""

import re

from strongroom_runtime.policy import Policy, Rule


def decide(policies: list[Policy], path: str, operation: str) -> frozenset[str]:
    """Returns the capabilities of the one rule that applies, after merging; empty for none."""
    patterns = {rule.path for policy in policies for rule in policy.rules}
    order = [path]
    if operation in ("list", "scan") and path.endswith("/"):
        order.append(path.removesuffix("/"))
    for candidate in order:
        if candidate in patterns and not wild(candidate):
            return united(policies, candidate)
    for candidate in order:
        matching = [p for p in patterns if wild(p) and matches(p, candidate)]
        only_prefix = [p for p in matching if "+" not in p.split("/")]
        longest = max(only_prefix, key=len, default=None)
        field = [p for p in matching if "+" in p.split("/")] + ([longest] if longest else [])
        if field:
            return united(policies, max(field, key=rank))
    return frozenset()


def wild(pattern: str) -> bool:
    return pattern.endswith("*") or "+" in pattern.split("/")


def matches(pattern: str, path: str) -> bool:
    parts = [
        "[^/]*" if part == "+" else re.escape(part) for part in pattern.removesuffix("*").split("/")
    ]
    tail = ".*" if pattern.endswith("*") else ""
    return re.fullmatch("/".join(parts) + tail, path, re.DOTALL) is not None


def rank(pattern: str) -> tuple[int, int, int, int, str]:
    parts = pattern.split("/")
    places = [len("/".join(parts[:n])) + (n > 0) for n, part in enumerate(parts) if part == "+"]
    if pattern.endswith("*"):
        places.append(len(pattern) - 1)
    return (
        min(places),
        0 if pattern.endswith("*") else 1,
        -parts.count("+"),
        len(pattern),
        pattern,
    )


def united(policies: list[Policy], pattern: str) -> frozenset[str]:
    rules: list[Rule] = [r for p in policies for r in p.rules if r.path == pattern]
    capabilities = frozenset().union(*(r.capabilities for r in rules))
    return frozenset({"deny"}) if "deny" in capabilities else capabilities

"""What a rule says of a request's parameters."""

from collections.abc import Callable, Mapping

from strongroom_runtime.policy.model import Parameters, Rule

Given = list[tuple[str, object]]


def parameters_allowed(rule: Rule, source: Callable[[], Mapping[str, object]] | None) -> bool:
    """Returns whether a rule lets a request's parameters pass.

    In this order: what is required must be there; a request without parameters passes; nothing may be denied; where
    parameters are allowed by name, all must be. Names are compared in lower case, so that no spelling gets past a
    rule; but what is required must be there in lower case, since no service reads another spelling.
    """
    allowed, denied = rule.allowed_parameters, rule.denied_parameters
    if not rule.required_parameters and allowed is None and denied is None:
        return True
    given = source() if source else {}
    if not rule.required_parameters <= given.keys():
        return False
    # Two names may be one in lower case: each value is looked at.
    named = [(name.lower(), value) for name, value in given.items()]
    if not named:
        return True
    if denied and not _none_denied(named, denied):
        return False
    return not allowed or _all_allowed(named, allowed)


def _none_denied(given: Given, denied: Parameters) -> bool:
    if "*" in denied:
        return False
    return not any(
        name in denied and (_matches(value, denied[name]) or _all_texts(value, denied[name]))
        for name, value in given
    )


def _all_allowed(given: Given, allowed: Parameters) -> bool:
    others = "*" in allowed
    for name, value in given:
        if name in allowed:
            if not _matches(value, allowed[name]):
                return False
        elif not others:
            return False
    return True


def _all_texts(value: object, denied: tuple[object, ...]) -> bool:
    """Returns whether a value is a text where `*` alone is denied.

    Vault takes a lone `*` for that one character. Whoever denies it means all texts; whoever allows it is told by the
    first refusal, so there Vault's reading stays.
    """
    return isinstance(value, str) and "*" in denied


def _matches(value: object, patterns: tuple[object, ...]) -> bool:
    """Returns whether a value is among the patterns. No patterns stand for any value."""
    return not patterns or any(_equal(value, pattern) for pattern in patterns)


def _equal(value: object, pattern: object) -> bool:
    if isinstance(value, str) and isinstance(pattern, str):
        return _text_matches(value, pattern)
    return _same(value, pattern)


def _same(one: object, other: object) -> bool:
    """Compares as JSON does: 1 and 1.0 are the same, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other


def _text_matches(value: str, pattern: str) -> bool:
    """Compares with a pattern that may have `*` at either end; one that is nothing else stands for itself."""
    if len(pattern) < 2:
        return value == pattern
    start, end = pattern.startswith("*"), pattern.endswith("*")
    core = pattern[1 if start else 0 : -1 if end else None]
    if start and end:
        return core in value
    if start:
        return value.endswith(core)
    return value.startswith(core) if end else value == pattern

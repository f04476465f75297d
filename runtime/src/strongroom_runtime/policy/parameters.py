"""What a rule says of a request's parameters."""

from collections.abc import Callable, Mapping

from strongroom_runtime.policy.model import Rule


def parameters_allowed(rule: Rule, source: Callable[[], Mapping[str, object]] | None) -> bool:
    """Returns whether a rule lets a request's parameters pass.

    In this order: what is required must be there; a request without parameters passes; nothing may be denied; where
    parameters are allowed by name, all must be.
    """
    allowed, denied = rule.allowed_parameters, rule.denied_parameters
    if not rule.required_parameters and allowed is None and denied is None:
        return True
    given = {name.lower(): value for name, value in source().items()} if source else {}
    if not rule.required_parameters <= given.keys():
        return False
    if not given:
        return True
    if denied and not _none_denied(given, denied):
        return False
    return not allowed or _all_allowed(given, allowed)


def _none_denied(given: Mapping[str, object], denied: Mapping[str, tuple[object, ...]]) -> bool:
    if "*" in denied:
        return False
    return not any(
        name in denied and _matches(value, denied[name]) for name, value in given.items()
    )


def _all_allowed(given: Mapping[str, object], allowed: Mapping[str, tuple[object, ...]]) -> bool:
    others = "*" in allowed
    for name, value in given.items():
        if name in allowed:
            if not _matches(value, allowed[name]):
                return False
        elif not others:
            return False
    return True


def _matches(value: object, patterns: tuple[object, ...]) -> bool:
    """Returns whether a value is among the patterns. No patterns stand for any value."""
    return not patterns or any(_equal(value, pattern) for pattern in patterns)


def _equal(value: object, pattern: object) -> bool:
    if isinstance(value, str) and isinstance(pattern, str):
        return _text_matches(value, pattern)
    if isinstance(value, bool) or isinstance(pattern, bool):
        return value is pattern
    numbers = isinstance(value, int | float) and isinstance(pattern, int | float)
    return (numbers or type(value) is type(pattern)) and value == pattern


def _text_matches(value: str, pattern: str) -> bool:
    """Compares with a pattern that may have `*` at either end."""
    start, end = pattern.startswith("*"), pattern.endswith("*")
    core = pattern[1 if start else 0 : -1 if end and len(pattern) > 1 else None]
    if start and end:
        return core in value
    if start:
        return value.endswith(core)
    return value.startswith(core) if end else value == pattern

"""From a policy's text, HCL or JSON, to its rules."""

import math

from strongroom_runtime.durations import parse_exact_seconds
from strongroom_runtime.policy import hcl
from strongroom_runtime.policy.hcl import Body, Item
from strongroom_runtime.policy.model import (
    CAPABILITIES,
    Parameters,
    Policy,
    PolicyError,
    Rule,
    shown,
    templates_match,
    united,
)
from strongroom_runtime.timestamps import parse_time

# What the one-word `policy` attribute of old policies stands for.
_OLD = {
    "deny": {"deny"},
    "read": {"read", "list"},
    "write": {"create", "read", "update", "delete", "list"},
    "sudo": {"create", "read", "update", "delete", "list", "sudo"},
}


def parse_policy(name: str, text: str) -> Policy:
    """Returns the policy that a text describes, in HCL or JSON.

    Raises:
        PolicyError: the text does not parse, or says something that no policy can mean.
    """
    rules: list[Rule] = []
    for item in hcl.parse(text):
        if item.key == "path" and len(item.labels) == 1:
            rules.append(_rule(item.labels[0], item.line, _blocks(item)[0]))
        elif item.key == "path" and not item.labels:
            # JSON, or path { "…" { … } }
            for inner in (inner for body in _blocks(item) for inner in body):
                rules += [_rule(inner.key, inner.line, body) for body in _blocks(_single(inner))]
        elif item.key != "name" or item.labels:
            raise PolicyError(
                f'line {item.line}: unknown key {shown(item.key)}; a policy has blocks: path "…" {{ … }}'
            )
    return Policy(name, tuple(rules))


def _blocks(item: Item) -> list[Body]:
    """Returns the block that a key has; JSON may give it several, as a list."""
    if isinstance(item.value, Body):
        return [item.value]
    values = _list(item.value) or []
    blocks = [value for value in values if isinstance(value, Body)]
    if not blocks or len(blocks) < len(values):
        raise PolicyError(f"line {item.line}: {shown(item.key)} needs a block: {{ … }}")
    return blocks


def _single(item: Item) -> Item:
    if item.labels:
        raise PolicyError(f"line {item.line}: expected = or {{ after {shown(item.key)}")
    return item


def _rule(path: str, line: int, block: Body) -> Rule:
    path = path.removeprefix("/")
    _check_path(path, f'line {line}: path "{shown(path)}": ')
    fields: dict[str, object] = {}
    for item in block:
        where = f'line {item.line}: path "{shown(path)}": '
        if item.key in fields:
            raise PolicyError(f"{where}{item.key} is given twice")
        if item.key not in _READERS:
            known = ", ".join(sorted(_READERS))
            raise PolicyError(f"{where}unknown key {shown(item.key)}; known: {known}")
        fields[item.key] = _READERS[item.key](_single(item).value, where + item.key)
    fields.pop("comment", None)
    fields["expires"] = fields.pop("expiration", math.inf)
    granted = fields.pop("capabilities", frozenset()) | fields.pop("policy", frozenset())  # type: ignore[operator]
    # A deny takes away all that stands beside it.
    rule = Rule(path, frozenset({"deny"}) if "deny" in granted else granted, **fields)  # type: ignore[arg-type]
    if 0 < rule.max_wrapping_ttl < rule.min_wrapping_ttl:
        raise PolicyError(
            f'line {line}: path "{shown(path)}": max_wrapping_ttl is less than min_wrapping_ttl'
        )
    return rule


def _check_path(path: str, where: str) -> None:
    if "+*" in path:
        raise PolicyError(f'{where}invalid use of wildcards ("+*" is forbidden)')
    if "*" in path[:-1]:
        raise PolicyError(f"{where}* may stand at the end only; + stands for one whole segment")
    if not templates_match(path):
        raise PolicyError(
            f"{where}double braces must stand around a name: {{{{identity.entity.id}}}}"
        )


def _capabilities(value: object, where: str) -> frozenset[str]:
    words = _texts(value, where)
    for word in words:
        if word not in CAPABILITIES:
            known = ", ".join(sorted(CAPABILITIES))
            raise PolicyError(f"{where}: unknown capability {shown(word)}; known: {known}")
    return frozenset(words)


def _old(value: object, where: str) -> frozenset[str]:
    granted = _OLD.get(value) if isinstance(value, str) else None
    if granted is None:
        raise PolicyError(f"{where} must be one of {', '.join(_OLD)}")
    return frozenset(granted)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(f"{where} takes a text")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    values = _list(value)
    if values is None or not all(isinstance(x, str) for x in values):
        raise PolicyError(f'{where} takes a list of texts: ["…", "…"]')
    return tuple(str(x) for x in values)


def _names(value: object, where: str) -> frozenset[str]:
    return frozenset(name.lower() for name in _texts(value, where))


def _parameters(value: object, where: str) -> Parameters:
    if not isinstance(value, Body):
        raise PolicyError(f'{where} takes an object of lists: {{ "name" = ["…"] }}')
    lists: dict[str, tuple[object, ...]] = {}
    for item in value:
        values = _list(_single(item).value)
        if values is None:
            raise PolicyError(
                f"{where}: {shown(item.key)} takes a list of values; [] stands for any value"
            )
        name, given = item.key.lower(), tuple(_plain(x) for x in values)
        # Twice the same name, but for case: both count.
        lists[name] = united(lists[name], given) if name in lists else given
    return lists


def _list(value: object) -> list[object] | None:
    return value if isinstance(value, list) and not isinstance(value, Body) else None


def _plain(value: object) -> object:
    """Returns a value as JSON has it."""
    if isinstance(value, Body):
        return {item.key: _plain(item.value) for item in value}
    return [_plain(x) for x in value] if isinstance(value, list) else value


def _least(value: object, where: str) -> int:
    return math.ceil(_seconds(value, where))


def _most(value: object, where: str) -> int:
    seconds = _seconds(value, where)
    # Less than a second is a bound nevertheless.
    return max(1, int(seconds)) if seconds else 0


def _seconds(value: object, where: str) -> float:
    try:
        return parse_exact_seconds(value if isinstance(value, str | int | float) else "")
    except ValueError as error:
        raise PolicyError(f"{where} {error}") from error


def _limit(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise PolicyError(f"{where} takes a whole number from 0 to {(1 << 31) - 1}")
    return value


def _end(value: object, where: str) -> float:
    if value == "":
        return math.inf  # what a template leaves where nothing is to end
    try:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return parse_time(str(value) if whole else _text(value, where))
    except ValueError as error:
        raise PolicyError(f"{where} {error}") from error


_READERS = {
    "capabilities": _capabilities,
    "policy": _old,
    "comment": _text,
    "allowed_parameters": _parameters,
    "denied_parameters": _parameters,
    "required_parameters": _names,
    "min_wrapping_ttl": _least,
    "max_wrapping_ttl": _most,
    "pagination_limit": _limit,
    "expiration": _end,
}

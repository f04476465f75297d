"""From a policy's text, HCL or JSON, to its rules."""

import re
from collections.abc import Iterable

import msgspec

from strongroom_runtime.policy import hcl
from strongroom_runtime.policy.hcl import Body, Item
from strongroom_runtime.policy.model import CAPABILITIES, Parameters, Policy, PolicyError, Rule

# What the one-word `policy` attribute of old policies stands for.
_OLD = {
    "deny": {"deny"},
    "read": {"read", "list"},
    "write": {"create", "read", "update", "delete", "list"},
    "sudo": {"create", "read", "update", "delete", "list", "sudo"},
}
_DURATION = re.compile(r"(\d+)(d|h|m|s|)")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "": 1}


def parse_policy(name: str, text: str) -> Policy:
    """Returns the policy that a text describes.

    Raises:
        PolicyError: the text does not parse, or says something that no policy can mean.
    """
    stripped = text.strip()
    body = _from_json(stripped) if stripped.startswith("{") else hcl.parse(text)
    rules: list[Rule] = []
    for item in body:
        if item.key == "path" and len(item.labels) == 1:
            rules.append(_rule(item.labels[0], item))
        elif item.key == "path" and not item.labels:
            rules += [_rule(inner.key, inner) for inner in _object(item, "path")]
        elif item.key != "name" or item.labels:
            raise PolicyError(
                f'{_where(item)}unknown key {item.key}; a policy has blocks: path "…" {{ … }}'
            )
    return Policy(name, tuple(rules))


def _from_json(text: str) -> Body:
    if len(text) > hcl.MAX_BYTES:
        raise PolicyError(f"a policy may have at most {hcl.MAX_BYTES} bytes")
    try:
        value = msgspec.json.decode(text.encode(errors="replace"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise PolicyError("the policy begins like JSON but is not") from error
    return _body(value, 0)


def _body(value: object, depth: int) -> Body:
    """Returns JSON objects as HCL items; a list of objects is the objects one after another, as in HCL."""
    if depth > hcl.MAX_DEPTH:
        raise PolicyError(f"nested deeper than {hcl.MAX_DEPTH}")
    objects = value if isinstance(value, list) else [value]
    items: Body = []
    for each in objects:
        if not isinstance(each, dict):
            raise PolicyError("expected an object")
        for key, inner in each.items():
            nested = isinstance(inner, dict) or _is_objects(inner)
            items.append(Item(key, (), _body(inner, depth + 1) if nested else inner, 0))
    return items


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)


def _rule(path: str, item: Item) -> Rule:
    path = path.removeprefix("/")
    where = f'path "{path}": '
    if "+*" in path:
        raise PolicyError(f'{where}invalid use of wildcards ("+*" is forbidden)')
    if "*" in path[:-1]:
        raise PolicyError(f"{where}* may stand at the end only; + stands for one whole segment")
    fields: dict[str, Item] = {}
    for inner in _object(item, where):
        if inner.key in fields:
            raise PolicyError(f"{where}{inner.key} is given twice")
        if inner.key not in _READERS:
            known = ", ".join(sorted(_READERS))
            raise PolicyError(f"{where}unknown key {inner.key}; known: {known}")
        fields[inner.key] = inner
    values = {key: _READERS[key](inner.value, where + key) for key, inner in fields.items()}
    values.pop("comment", None)
    old = values.pop("policy", None)
    capabilities = _capabilities(values.pop("capabilities", None), old, where)
    rule = Rule(path, capabilities, **values)  # type: ignore[arg-type]
    if 0 < rule.max_wrapping_ttl < rule.min_wrapping_ttl:
        raise PolicyError(f"{where}max_wrapping_ttl is less than min_wrapping_ttl")
    return rule


def _capabilities(words: object, old: object, where: str) -> frozenset[str]:
    granted: set[str] = set()
    if old is not None:
        if old not in _OLD:
            raise PolicyError(f"{where}policy must be one of {', '.join(_OLD)}")
        granted |= _OLD[str(old)]
    for word in words if isinstance(words, tuple) else ():
        if word not in CAPABILITIES:
            known = ", ".join(sorted(CAPABILITIES))
            raise PolicyError(f"{where}unknown capability {word}; known: {known}")
        granted.add(word)
    # A deny takes away all that stands beside it.
    return frozenset({"deny"} if "deny" in granted else granted)


def _object(item: Item, where: str) -> Body:
    if not isinstance(item.value, list) or not all(isinstance(x, Item) for x in item.value):
        raise PolicyError(f"{_where(item)}{where} needs a block: {{ … }}")
    return item.value


def _where(item: Item) -> str:
    return f"line {item.line}: " if item.line else ""


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(f"{where} takes a text")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise PolicyError(f"{where} takes a list of texts")
    return tuple(value)


def _names(value: object, where: str) -> frozenset[str]:
    return frozenset(name.lower() for name in _texts(value, where))


def _parameters(value: object, where: str) -> Parameters:
    if not isinstance(value, list) or not all(isinstance(x, Item) for x in value):
        raise PolicyError(f"{where} takes an object of lists")
    return dict(_parameter_lists(value, where))


def _parameter_lists(items: Iterable[Item], where: str) -> Iterable[tuple[str, tuple[object, ...]]]:
    for item in items:
        if not isinstance(item.value, list):
            raise PolicyError(f"{where}: {item.key} takes a list of values")
        yield item.key.lower(), tuple(item.value)


def _seconds(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value and not _DURATION.sub("", value):
        return sum(int(n) * _SECONDS[unit] for n, unit in _DURATION.findall(value))
    raise PolicyError(f"{where} takes seconds or a duration such as 1h30m")


def _limit(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PolicyError(f"{where} takes a whole number that is not negative")
    return value


_READERS = {
    "capabilities": _texts,
    "policy": _text,
    "comment": _text,
    "allowed_parameters": _parameters,
    "denied_parameters": _parameters,
    "required_parameters": _names,
    "min_wrapping_ttl": _seconds,
    "max_wrapping_ttl": _seconds,
    "pagination_limit": _limit,
}

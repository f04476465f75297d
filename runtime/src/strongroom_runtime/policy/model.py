"""Policies as values."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

CAPABILITIES = ("sudo", "read", "list", "update", "delete", "create", "patch", "scan", "deny")

# {{ name }} in a path.
_TEMPLATE = re.compile(r"\{\{\s*([^\s{}]+)\s*\}\}")

Parameters = Mapping[str, tuple[object, ...]]


class PolicyError(Exception):
    """A policy that does not parse. The text names the line or the path, and what would be right."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One path block.

    `path` is as written, without a leading slash. Parameter names are in lower case; None means that the block
    does not speak of them. Wrapping TTLs and the pagination limit are 0 where not set; TTLs are in seconds. The block
    ends at `expires`, seconds since 1970; then it is as if it were not there.
    """

    path: str
    capabilities: frozenset[str]
    allowed_parameters: Parameters | None = None
    denied_parameters: Parameters | None = None
    required_parameters: frozenset[str] = frozenset()
    min_wrapping_ttl: int = 0
    max_wrapping_ttl: int = 0
    pagination_limit: int = 0
    expires: float = math.inf

    @property
    def is_prefix(self) -> bool:
        """Whether it ends in `*`."""
        return self.path.endswith("*")

    @property
    def has_plus(self) -> bool:
        """Whether it is ranked among the rules with `+`."""
        return has_plus(self.path)


@dataclass(frozen=True, slots=True)
class Policy:
    """A named list of rules. Two blocks for one path both count; see `Acl`."""

    name: str
    rules: tuple[Rule, ...] = field(default=())

    def render(self, values: Mapping[str, str]) -> "Policy":
        """Returns the policy with `{{name}}` in paths replaced.

        A value is a literal: a rule whose value is missing or empty, or has a character that means something in
        a path (`*`, `+`, `/`), or whose braces do not match, is void and left out.
        """
        rendered = []
        for rule in self.rules:
            path = _render(rule.path, values)
            if path is not None:
                rendered.append(replace(rule, path=path) if path != rule.path else rule)
        return replace(self, rules=tuple(rendered))


def has_plus(path: str) -> bool:
    """Returns whether a path is ranked among those with `+` for a segment.

    As in Vault that takes a `+` at the beginning of a segment, which stands for itself where it is not all of it.
    """
    return path.startswith("+/") or path == "+" or "/+" in path


def united(one: tuple[object, ...], other: tuple[object, ...]) -> tuple[object, ...]:
    """Returns two lists of values as one; an empty one, which stands for any value, swallows the other."""
    return (*one, *other) if one and other else ()


def templates_match(path: str) -> bool:
    """Whether all double braces of a path stand around a name."""
    rest = _TEMPLATE.sub("", path)
    return "{{" not in rest and "}}" not in rest


def shown(text: str) -> str:
    """Returns a part of a policy as an error's text shows it: printable, and not too long."""
    short = text if len(text) <= 60 else text[:60] + "…"
    return "".join(c if c.isprintable() else "?" for c in short)


def _render(path: str, values: Mapping[str, str]) -> str | None:
    if "{{" not in path and "}}" not in path:
        return path
    named = [values.get(name, "") for name in _TEMPLATE.findall(path)]
    if not templates_match(path) or not all(_is_literal(value) for value in named):
        return None
    return _TEMPLATE.sub(lambda match: values[match.group(1)], path)


def _is_literal(value: str) -> bool:
    return bool(value) and not any(c in value for c in "*+/{}")

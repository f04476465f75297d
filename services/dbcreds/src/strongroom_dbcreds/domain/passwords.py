"""Passwords, and the policies by which they are made (Vault documentation, "Password policies")."""

import functools
import secrets
import string
from dataclasses import dataclass

from strongroom_dbcreds.domain.compositions import Compositions, TooManyError
from strongroom_runtime.errors import invalid
from strongroom_runtime.policy import hcl
from strongroom_runtime.policy.model import PolicyError
from strongroom_runtime.secrets import random_letters
from strongroom_runtime.tools import base64_text

SHORTEST, LONGEST = 4, 100
_LONGEST_CHARSET = 200


@dataclass(frozen=True, slots=True)
class Rule:
    """At least `least` of a password's characters are of `charset`."""

    charset: str
    least: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a password is, and what it is made of: the characters of all rules together."""

    length: int
    rules: tuple[Rule, ...]


@functools.lru_cache(maxsize=64)
def _compositions(policy: Policy) -> Compositions:
    charset = "".join(sorted({letter for rule in policy.rules for letter in rule.charset}))
    rules = [(rule.charset, rule.least) for rule in policy.rules]
    return Compositions(policy.length, charset, rules)


USUAL = Policy(
    20,
    (
        Rule(string.ascii_lowercase, 1),
        Rule(string.ascii_uppercase, 1),
        Rule(string.digits, 1),
        Rule("-", 1),
    ),
)


def parse(text: str) -> Policy:
    """Returns the policy of a text, HCL or JSON, or either in base64.

    Raises:
        ServiceError: INVALID; says what is wrong.
    """
    try:
        items = hcl.parse(_decoded(text))
    except PolicyError as error:
        raise invalid(f"policy: {error}") from None
    length, rules = 0, []
    for item in items:
        if item.key == "length" and not item.labels:
            length = _number(item.value, "length")
        elif item.key == "rule":
            rules += _rules(item)
        else:
            raise invalid(f"policy: line {item.line}: unknown; there are length and rule")
    if not SHORTEST <= length <= LONGEST:
        raise invalid(f"policy: length must be from {SHORTEST} to {LONGEST}")
    if not rules:
        raise invalid('policy: at least one rule "charset" is needed')
    policy = Policy(length, tuple(rules))
    try:
        found = _compositions(policy).texts
    except TooManyError:
        raise invalid("policy: its rules share too many characters in too many ways") from None
    if not found:
        raise invalid("policy: the rules ask for more characters than length has")
    return policy


def generate(policy: Policy) -> str:
    """Returns a password, each that the policy allows as likely as any other."""
    letters = [
        letter
        for charset, many in _compositions(policy).draw()
        for letter in random_letters(charset, many)
    ]
    secrets.SystemRandom().shuffle(letters)
    return "".join(letters)


def _rules(item: hcl.Item) -> list[Rule]:
    """Returns the rules of `rule "charset" {…}`, or of JSON's `"rule": [{"charset": {…}}]`."""
    if item.labels:
        return [_rule(item.labels, item.value, item.line)]
    found: list[Rule] = []
    for body in _each(item.value):
        if not isinstance(body, hcl.Body):
            raise invalid(f'policy: line {item.line}: takes rule "charset" {{ … }}')
        for kind in body:
            found += [_rule((kind.key,), each, item.line) for each in _each(kind.value)]
    return found


def _each(value: object) -> list[object]:
    """Returns what a list holds; what is no list stands for itself."""
    return value if isinstance(value, list) and not isinstance(value, hcl.Body) else [value]


def _rule(labels: tuple[str, ...], body: object, line: int) -> Rule:
    if labels != ("charset",) or not isinstance(body, hcl.Body):
        raise invalid(f'policy: line {line}: takes rule "charset" {{ … }}')
    charset, least = "", 0
    for item in body:
        if item.key == "charset" and isinstance(item.value, str):
            charset = item.value
        elif item.key in ("min-chars", "min_chars"):
            least = _number(item.value, "min-chars")
        else:
            raise invalid(f"policy: line {item.line}: takes charset and min-chars")
    if not 0 < len(charset) <= _LONGEST_CHARSET or not charset.isprintable():
        raise invalid(
            f"policy: line {line}: charset must have 1 to {_LONGEST_CHARSET} printable characters"
        )
    return Rule(charset, least)


def _number(value: object, name: str) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(f"policy: {name} takes a whole number")
    return value


def _decoded(text: str) -> str:
    found = base64_text("".join(text.split()))
    return text if found is None else found

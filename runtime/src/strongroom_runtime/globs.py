"""Patterns in which `*` stands for any characters, and everything else for itself, as Vault has them."""

import fnmatch
import re
from collections.abc import Iterable

_LITERAL = re.compile(r"[\[?]")  # what `fnmatch` knows beside `*`


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Returns whether one of some patterns matches a whole name."""
    return any(fnmatch.fnmatchcase(name, _LITERAL.sub(r"[\g<0>]", pattern)) for pattern in patterns)

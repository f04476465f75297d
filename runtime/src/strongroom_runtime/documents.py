"""JSON that is kept as it came: what must hold so that all who read it see the same in it."""

import json
from typing import Any

import msgspec

from strongroom_runtime.errors import invalid


class _RepeatedError(Exception):
    """An object has a key twice."""


def refuse_repeated_keys(document: bytes, field: str) -> None:
    """Raises where an object in a document, however deep, has a key twice.

    Readers take the first of the two, or the last (RFC 8259, section 4): a policy could then judge one value and a
    client read the other.

    Args:
        document: well-formed JSON in UTF-8.
        field: what errors name.

    Raises:
        ServiceError: INVALID.
    """
    if document.count(b":") == _distinct_keys(document):
        return  # each member has a colon of its own: so there are no others than those with a key of their own
    try:
        # Numbers stay texts: those of many digits would cost time, or be refused.
        json.loads(document.decode(), object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except _RepeatedError:
        raise invalid(f"{field}: an object has a key twice") from None
    except (ValueError, RecursionError):
        raise invalid(f"{field}: must be JSON") from None


def _distinct_keys(document: bytes) -> int:
    """Returns how many keys there are, one that an object has twice counted once; -1 where that is hard to say."""
    try:
        values, count = [msgspec.json.decode(document)], 0
    except (msgspec.DecodeError, ValueError, RecursionError):
        return -1
    while values:
        value = values.pop()
        if type(value) is dict:
            count += len(value)
            values += value.values()
        elif type(value) is list:
            values += value
    return count


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _RepeatedError

"""JSON that is kept as it came: what must hold so that all who read it see the same in it."""

import json
from typing import Any

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
    try:
        # Numbers stay texts: those of many digits would cost time, or be refused.
        json.loads(document.decode(), object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except _RepeatedError:
        raise invalid(f"{field}: an object has a key twice") from None
    except (ValueError, RecursionError):
        raise invalid(f"{field}: must be JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _RepeatedError

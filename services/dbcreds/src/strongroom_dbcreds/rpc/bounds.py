"""How much may be kept of a connection or a role: what is bounded here fits into one transaction together."""

from collections.abc import Mapping, Sequence
from typing import Any

from strongroom_dbcreds.domain import statements
from strongroom_runtime.requests import check_length, check_total

MAX_DETAIL = 32 << 10  # characters; the longest are chains of certificates
MAX_LIST = 64 << 10  # characters of all statements of one kind, names of roles, or settings


def check_details(details: Mapping[str, Any]) -> None:
    """Raises for a field of a connection that is too long.

    Raises:
        ServiceError: INVALID.
    """
    for name, value in details.items():
        if isinstance(value, str):
            check_length(name, value, MAX_DETAIL)


def statements_of(field: str, values: Sequence[str]) -> tuple[str, ...]:
    """Returns the statements that a request gives.

    Raises:
        ServiceError: INVALID where they are too long.
    """
    check_total(field, values, MAX_LIST)
    return statements.given(values)


def settings_of(field: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings that a request gives.

    Raises:
        ServiceError: INVALID where they are too long.
    """
    check_total(field, [*settings.keys(), *settings.values()], MAX_LIST)
    return dict(settings)

"""Settings that have an older name too: both are taken, and the older is shown where it was the one last written."""

from collections.abc import Iterable, Mapping
from typing import Any

from strongroom.auth.v1 import login_pb2


def take(given: Any, message: Any, names: Mapping[str, str], old: Iterable[str]) -> tuple[str, ...]:
    """Puts what a message has by old names alone where the new ones are.

    Args:
        given: the message that has the new names, which may be the same.
        message: the one that has the old names.
        names: the fields of the new names by the old ones.
        old: the fields that were written last by their old names.

    Returns:
        Those as they are then.
    """
    after = set(old)
    for name, field in names.items():
        if given.HasField(field):
            after.discard(field)
        elif message.HasField(name):
            after.add(field)
            put(given, field, getattr(message, name))
    return tuple(sorted(after))


def show(message: Any, known: Any, names: Mapping[str, str], old: Iterable[str]) -> None:
    """Lets a message show by their old names as well what was written by these, unless it is empty, as Vault does.

    Args:
        message: the one that has the old names.
        known: the message that has the new names, which may be the same.
        names: the fields of the new names by the old ones.
        old: the fields that were written last by their old names.
    """
    for name, field in names.items():
        value = getattr(known, field)
        if field in old and value != type(value)():
            put(message, name, value)


def put(target: Any, field: str, value: Any) -> None:
    """Gives a field of a message a scalar or a list of texts."""
    if isinstance(value, login_pb2.TextList):
        getattr(target, field).CopyFrom(value)
    else:
        setattr(target, field, value)

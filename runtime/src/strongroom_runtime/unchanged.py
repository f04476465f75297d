"""Looks in the background that are left out while nothing changes."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from strongroom_runtime.storage import Store

T = TypeVar("T")

_LONGEST_SECONDS = 60.0


async def unless_unchanged(store: Store, name: object, look: Callable[[], Awaitable[T]]) -> T:
    """Returns what a look at a service's entries gives: that of the last one, where none of them changed since.

    What is returned is not to be altered. After a minute it is looked again, come what may.

    Args:
        store: of the service.
        name: of the look.
        look: looks.

    Raises:
        ServiceError: as `look` does.
    """
    made = store.made()
    known = made.get(name) if made is not None else None
    now = time.monotonic()
    if known is not None and now < known[1]:
        found: T = known[0]
        return found
    found = await look()
    if made is not None:
        made[name] = (found, now + _LONGEST_SECONDS)
    return found

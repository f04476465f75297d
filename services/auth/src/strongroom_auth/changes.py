"""Changing one record, however many do at once."""

import contextlib
from collections.abc import Awaitable, Callable

from strongroom_auth.tokens.tokens import conflict
from strongroom_runtime.storage import ConflictError, Entry, Path, Store, Transaction


async def change(
    store: Store,
    path: Path,
    decide: Callable[[Entry | None], Awaitable[bytes]],
    attempts: int,
) -> None:
    """Replaces a record by what a function makes of it; it is asked again where another was faster.

    Args:
        store: the service's.
        path: of the record.
        decide: gets the record, None where there is none.
        attempts: how often it is asked.

    Raises:
        ServiceError: CONFLICT; others were faster each time. What `decide` raises.
    """
    for _ in range(attempts):
        entry = await store.get(path)
        value = await decide(entry)
        with contextlib.suppress(ConflictError):
            await store.commit(
                Transaction(expect={path: entry.revision if entry else 0}, puts={path: value})
            )
            return
    raise conflict()

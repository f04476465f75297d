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

    async def put(entry: Entry | None) -> Transaction:
        return Transaction(puts={path: await decide(entry)})

    await change_with(store, path, put, attempts)


async def change_with(
    store: Store,
    path: Path,
    decide: Callable[[Entry | None], Awaitable[Transaction]],
    attempts: int,
) -> None:
    """Changes a record and what goes with it; as `change`, but `decide` gives all that is to be written.

    Raises:
        ServiceError: as `change`.
    """
    for _ in range(attempts):
        entry = await store.get(path)
        transaction = await decide(entry)
        transaction.expect[path] = entry.revision if entry else 0
        with contextlib.suppress(ConflictError):
            await store.commit(transaction)
            return
    raise conflict()

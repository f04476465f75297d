"""Changing one record, however many do at once."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from strongroom_auth.tokens.tokens import conflict
from strongroom_runtime.storage import ConflictError, Entry, Path, Store, Transaction

T = TypeVar("T")


async def repeated(attempts: int, work: Callable[[], Awaitable[T]]) -> T:
    """Returns what work gives that is done again where what it had read was changed meanwhile.

    Args:
        attempts: how often it is done.
        work: raises ConflictError where others were faster.

    Raises:
        ServiceError: CONFLICT; others were faster each time. What `work` raises.
    """
    for _ in range(attempts):
        with contextlib.suppress(ConflictError):
            return await work()
    raise conflict()


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

    async def commit() -> None:
        entry = await store.get(path)
        transaction = await decide(entry)
        transaction.expect[path] = entry.revision if entry else 0
        await store.commit(transaction)

    await repeated(attempts, commit)

"""Policies that end, found by when they do.

The index is written with each policy, in the same transaction. It only says where to look: whether a policy has ended
says its record, so that an entry too many, or one too few, ends nothing too early or too late.
"""

import contextlib
from collections.abc import AsyncIterator

from strongroom_auth.policies.records import DUE, DUE_DIGITS, POLICY, decoded, due_path, policy_path
from strongroom_runtime.clock import Clock
from strongroom_runtime.storage import ConflictError, Entry, Path, Store, Transaction, going_past
from strongroom_runtime.time_index import all_due

_PAGE = 100


class Ending:
    """The index of policies that end.

    Args:
        store: the service's.
        clock: by which they end.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.complete = False  # whether each policy that ends is known to stand in the index

    async def gone(self) -> set[str]:
        """Returns the names of policies that have ended and are not yet removed."""
        names: set[str] = set()
        async for due in self._due():
            with going_past(self._store, due.path):
                entry = await self._store.get(policy_path(due.path[2]))
                if entry is not None and decoded(entry.value).gone(self._clock.now()):
                    names.add(due.path[2])
        return names

    async def remove(self) -> None:
        """Removes policies that have ended, which only take room. May be done by several replicas at once."""
        async for due in self._due():
            # Another may have written the policy anew meanwhile.
            with contextlib.suppress(ConflictError), going_past(self._store, due.path):
                path = policy_path(due.path[2])
                entry = await self._store.get(path)
                transaction = self._settled(due.path, entry)
                if transaction is not None:
                    transaction.expect[path] = entry.revision if entry is not None else 0
                    await self._store.commit(transaction)

    async def complete_index(self) -> None:
        """Adds policies that an earlier version wrote, which had no index. May be repeated, by any replica."""
        after: Path | None = None
        while entries := await self._store.scan(
            (POLICY,), after=after, limit=_PAGE, past_unreadable=True
        ):
            after = entries[-1].path
            wanted: dict[Path, Entry] = {}
            for entry in entries:
                with going_past(self._store, entry.path):
                    due = due_path(entry.path[1], decoded(entry.value))
                    if due is not None:
                        wanted[due] = entry
            there = await self._store.get_many(list(wanted)) if wanted else []
            for (due, entry), found in zip(wanted.items(), there, strict=True):
                if found is None:
                    # Who changes the policy meanwhile writes the index as well, or is found by the next pass.
                    with contextlib.suppress(ConflictError):
                        await self._store.commit(
                            Transaction(expect={entry.path: entry.revision}, puts={due: b""})
                        )
        self.complete = True

    def _due(self) -> AsyncIterator[Entry]:
        """Returns the entries whose time has come, the earliest first."""
        return all_due(self._store, (DUE,), DUE_DIGITS, 1, int(self._clock.now()))

    def _settled(self, due: Path, entry: Entry | None) -> Transaction | None:
        """Returns what is to be done about an index entry whose time has come; None where it is a little early."""
        if entry is None:
            return Transaction(deletes=[due])
        record = decoded(entry.value)
        if record.gone(self._clock.now()):
            return Transaction(deletes=[due, entry.path])
        right = due_path(due[2], record)
        if right == due:
            return None
        # An earlier version wrote the policy, and left the index as it was.
        return Transaction(deletes=[due], puts={right: b""} if right is not None else {})

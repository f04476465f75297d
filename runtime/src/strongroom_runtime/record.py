"""Single records that every request needs."""

from collections.abc import Callable
from typing import Generic, TypeVar

from strongroom_runtime.storage import Entry, Path, Store

T = TypeVar("T")


class Record(Generic[T]):
    """What is made of one record, for as long as it stays as it is.

    While nothing changes in the store the record is not even looked for. What is made goes with the entry: when
    memory is given up, and when the process is sealed.

    Args:
        store: has the record.
        path: where it is.
        make: makes something of it; it gets None where there is no record.
    """

    def __init__(self, store: Store, path: Path, make: Callable[[Entry | None], T]) -> None:
        self._store = store
        self._path = path
        self._make = make

    async def current(self) -> T:
        """Returns what is made of the record as it is; a request that starts after a change has returned sees it.

        Raises:
            ServiceError: as `Store.get`.
        """
        made = self._store.made()
        if made is not None and self in made:
            found: T = made[self]
            return found
        entry = await self._store.get(self._path)
        if entry is None:
            result = self._make(None)
        else:
            if entry.made is None:
                entry.made = self._make(entry)
            result = entry.made
        if made is not None:
            made[self] = result
        return result

"""Locks by name, within one process."""

import asyncio
from collections.abc import Hashable


class KeyedLocks:
    """A lock for each key, forgotten once nobody uses it.

    For those who would otherwise fail each other's transactions; other processes are kept out by the transactions.
    """

    def __init__(self) -> None:
        self._locks: dict[Hashable, _Lock] = {}

    def hold(self, key: Hashable) -> "_Held":
        """Holds the lock of a key."""
        return _Held(self._locks, key)


class _Lock(asyncio.Lock):
    users = 0


class _Held:
    """One use of a lock."""

    __slots__ = ("_key", "_lock", "_locks")

    def __init__(self, locks: dict[Hashable, _Lock], key: Hashable) -> None:
        self._locks = locks
        self._key = key

    async def __aenter__(self) -> None:
        self._lock = self._locks.get(self._key) or self._locks.setdefault(self._key, _Lock())
        self._lock.users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._lock.users -= 1
        if not self._lock.users:
            del self._locks[self._key]

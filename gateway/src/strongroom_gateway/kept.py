"""What the gateway keeps of other services' answers, for as long as the storage keys they rest on stand."""

from collections.abc import Sized
from typing import Generic, TypeVar

from strongroom_runtime.etcd.cache import Invalidation
from strongroom_runtime.etcd.prefix import PrefixView

T = TypeVar("T")


class Kept(Generic[T]):
    """A bounded map whose entries go when one of their storage keys changes.

    Args:
        view: the prefix that the storage keys are below.
        most: how many entries, or how many bytes where `keep` is told sizes; the oldest go first.
    """

    def __init__(self, view: PrefixView, most: int = 20_000) -> None:
        self._most = most
        self._entries: dict[object, tuple[T, list[bytes], int]] = {}
        self._held = 0
        self._by_key: dict[bytes, set[object]] = {}
        self._invalidation = Invalidation(view, self._changed, self._forget)
        self._certain = view.certain

    def get(self, name: object) -> T | None:
        """Returns what is kept, if it is certain still to hold."""
        if not self._certain():
            return None
        found = self._entries.get(name)
        return found[0] if found is not None else None

    def stale(self, dependencies: Sized, as_of: int) -> bool:
        """Whether an answer is too old to be kept: a linearizable one should be asked for."""
        return len(dependencies) > 0 and self._invalidation.stale(as_of)

    def keep(
        self, name: object, value: T, dependencies: list[bytes], as_of: int, size: int = 1
    ) -> None:
        """Keeps an answer, if it still holds. One that rests on nothing always does.

        Args:
            name: by which it is found.
            value: the answer.
            dependencies: the storage keys that it rests on.
            as_of: a revision at which it held.
            size: in bytes, where the bound is in bytes.
        """
        if dependencies and not self._invalidation.may_keep(dependencies, as_of):
            return
        self._drop(name)
        self._entries[name] = (value, dependencies, size)
        self._held += size
        for key in dependencies:
            self._by_key.setdefault(key, set()).add(name)
        while self._held > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, name: object) -> None:
        found = self._entries.pop(name, None)
        if found is None:
            return
        self._held -= found[2]
        for key in found[1]:
            names = self._by_key.get(key)
            if names is not None:
                names.discard(name)
                if not names:
                    del self._by_key[key]

    def _changed(self, key: bytes) -> None:
        for name in list(self._by_key.get(key, ())):
            self._drop(name)

    def _forget(self) -> None:
        self._entries.clear()
        self._by_key.clear()
        self._held = 0

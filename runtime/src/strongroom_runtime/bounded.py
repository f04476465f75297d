"""A memory of bounded size for what can be made again at once."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dictionary that forgets everything once it is full: what is in use comes back at once.

    To keep the order of use, as `functools.lru_cache` does, would cost each look more than it saves here.

    Args:
        most: how many entries are kept.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> None:
        """Keeps an entry; by item assignment there would be no bound."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value

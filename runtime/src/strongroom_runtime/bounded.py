"""A memory of bounded size for what can be made again at once."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_LARGEST_SHARE = 1_000  # of all that is kept


class Bounded(dict[K, V]):
    """A dictionary that forgets everything once it is full: what is in use comes back at once.

    To keep the order of use, as `functools.lru_cache` does, would cost each look more than it saves here. What is
    large is not kept at all: clients choose names and paths, and a few long ones would push out everything else.

    Args:
        most: how many entries are kept, or how many bytes where `keep` is told sizes.
    """

    __slots__ = ("_held", "_most")

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._held = 0

    def keep(self, key: K, value: V, size: int = 1) -> None:
        """Keeps an entry; by item assignment there would be no bound.

        Args:
            key: of the entry. One that is there already counts once more.
            value: of the entry.
            size: about how many bytes it takes, where the bound is in bytes.
        """
        if size > max(1, self._most // _LARGEST_SHARE):
            return
        if self._held + size > self._most:
            self.clear()
        self._held += size
        self[key] = value

    def clear(self) -> None:
        """Forgets everything."""
        super().clear()
        self._held = 0

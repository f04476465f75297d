"""What is made of objects that never change and come again and again, made once for each."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
M = TypeVar("M")


class Derived(Generic[T, M]):
    """Keeps what was made of an object together with the object itself, so that its id stays its own.

    Args:
        make: what to make of an object.
        most: how many are kept; beyond them all are forgotten, and those in use come back at once.
    """

    def __init__(self, make: Callable[[T], M], most: int = 5_000) -> None:
        self._make = make
        self._most = most
        self._made: dict[int, tuple[T, M]] = {}

    def of(self, value: T) -> M:
        """Returns what is made of an object that never changes."""
        known = self._made.get(id(value))
        if known is None:
            if len(self._made) >= self._most:
                self._made.clear()
            known = self._made[id(value)] = (value, self._make(value))
        return known[1]

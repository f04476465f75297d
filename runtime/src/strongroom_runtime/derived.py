"""What is made of objects that never change and come again and again, made once for each."""

from collections.abc import Callable
from typing import Generic, TypeVar

from strongroom_runtime.bounded import Bounded

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
        self._made: Bounded[int, tuple[T, M]] = Bounded(most)

    def of(self, value: T) -> M:
        """Returns what is made of an object that never changes."""
        known = self._made.get(id(value))
        if known is None:
            known = (value, self._make(value))
            self._made.keep(id(value), known)
        return known[1]

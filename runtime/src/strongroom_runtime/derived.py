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
        most: how many are kept, or how many bytes; beyond them all are forgotten, and those in use come back at once.
        size: returns how many bytes what is made takes, with its object; None where `most` counts objects.
    """

    def __init__(
        self, make: Callable[[T], M], most: int = 5_000, size: Callable[[M], int] | None = None
    ) -> None:
        self._make = make
        self._size = size
        self._made: Bounded[int, tuple[T, M]] = Bounded(most)

    def of(self, value: T) -> M:
        """Returns what is made of an object that never changes."""
        known = self._made.get(id(value))
        if known is None:
            made = self._make(value)
            known = (value, made)
            self._made.keep(id(value), known, self._size(made) if self._size is not None else 1)
        return known[1]

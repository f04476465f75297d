"""How many texts there are of which composition, so that one of all is drawn at once, each as likely as any other.

The letters are parted into classes by the rules that they count for. How many letters a text has of each class is its
composition; of texts of one composition none differs from another in anything that rules look at. So a composition is
drawn by how many texts it has, then letters and their places (counting before drawing: Nijenhuis and Wilf,
"Combinatorial Algorithms", 1978, chapter 13).
"""

import math
import secrets
from collections.abc import Sequence

# Twelve rules that do not overlap have thirteen classes, and a hundred counts of each where texts are as long.
_MOST_RULES, _MOST_CLASSES, _MOST_COUNTS = 12, 32, 1_000


class TooManyError(Exception):
    """The rules part the letters into more than can be counted in reasonable time."""


class Compositions:
    """The compositions of texts that meet some rules.

    Args:
        length: of the texts.
        letters: what they are made of, each letter once.
        rules: sets of letters, and how many letters of each a text has at least.

    Raises:
        TooManyError: there are too many.
    """

    def __init__(self, length: int, letters: str, rules: Sequence[tuple[str, int]]) -> None:
        kept = [(frozenset(some), least) for some, least in rules if least]
        classes: dict[tuple[int, ...], str] = {}
        for letter in letters:
            counts_for = tuple(r for r, (some, _) in enumerate(kept) if letter in some)
            classes[counts_for] = classes.get(counts_for, "") + letter
        self._classes = sorted(classes.items())
        # A rule is settled once the last class that counts for it is.
        self._last = {r: at for at, (counts_for, _) in enumerate(self._classes) for r in counts_for}
        # Of each class and those after it.
        sizes = [len(some) for _, some in self._classes]
        self._sizes = [sum(sizes[at:]) for at in range(len(sizes) + 1)]
        self._whole = (0, length, tuple(least for _, least in kept))
        self._known: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
        if len(kept) > _MOST_RULES or len(self._classes) > _MOST_CLASSES:
            raise TooManyError
        self.texts = self._count(*self._whole)  # how many there are

    def draw(self) -> list[tuple[str, int]]:
        """Returns the letters of each class, and how many of them a text has. There must be a text."""
        at, left, needed = self._whole
        drawn: list[tuple[str, int]] = []
        while at < len(self._classes):
            counts_for, letters = self._classes[at]
            weights = self._weights(at, left, needed)
            rest, many = secrets.randbelow(sum(weights)), 0
            while rest >= weights[many]:
                rest -= weights[many]
                many += 1
            drawn.append((letters, many))
            at, left, needed = at + 1, left - many, _without(needed, counts_for, many)
        return drawn

    def _count(self, at: int, left: int, needed: tuple[int, ...]) -> int:
        """Returns how many texts of so many letters there are of the classes from one on."""
        if not any(needed):
            return int(self._sizes[at] ** left)
        if max(needed) > left:
            return 0
        return sum(self._weights(at, left, needed))

    def _weights(self, at: int, left: int, needed: tuple[int, ...]) -> list[int]:
        """Returns how many of them have no letter of the first class, one, two, and so on."""
        known = self._known.get((at, left, needed))
        if known is not None:
            return known
        if len(self._known) >= _MOST_COUNTS:
            raise TooManyError
        counts_for, letters = self._classes[at]
        fewest = max((needed[r] for r in counts_for if self._last[r] == at), default=0)
        weights = [0] * min(fewest, left + 1)
        for many in range(fewest, left + 1):
            others = self._count(at + 1, left - many, _without(needed, counts_for, many))
            weights.append(others and math.comb(left, many) * len(letters) ** many * others)
        self._known[at, left, needed] = weights
        return weights


def _without(needed: tuple[int, ...], counts_for: tuple[int, ...], many: int) -> tuple[int, ...]:
    """Returns what rules need after so many letters that count for some of them."""
    return tuple(max(0, n - many) if r in counts_for else n for r, n in enumerate(needed))

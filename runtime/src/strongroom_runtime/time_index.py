"""Entries that stand in the order of a time, of which those that are due are looked at."""

import time
from collections.abc import AsyncIterator, Callable

from strongroom_runtime.storage import Entry, Path, Plain, Store

# Of the time of an entry: how much earlier it may be than what was seen last, as transactions take a while.
_LATE_SECONDS = 2
_LEAST_SECONDS, _MOST_SECONDS = 5.0, 60.0  # between looks at the beginning
_SHARE = 50  # of the time that may be spent on those: a fiftieth
_PAGE = 100


async def all_due(store: Store, prefix: Path, digits: int, last: int) -> AsyncIterator[Entry]:
    """Yields the entries below a prefix whose next segment is a time, the oldest first, up to one in the same units.

    For few of them; a `TimeIndex` is for those of whom a page is taken again and again.
    """
    after: Path | None = None
    until = _moment(prefix, digits, last + 1)
    while entries := await store.scan(prefix, after=after, until=until, limit=_PAGE):
        for entry in entries:
            yield entry
        after = entries[-1].path


class TimeIndex:
    """Looks at the entries below a prefix whose next segment is a time, the oldest first.

    etcd counts all keys of a range, however few of them it is to return, those among them that were deleted since
    its last compaction. So a look ends at what is due, which leaves out all that is to come, and begins a little
    before where the last one found something, which leaves out what was deleted since. What another replica files
    before that is found by a look at the beginning, every few seconds.

    Args:
        store: where the entries are.
        prefix: of them all.
        digits: of a time, with leading zeros.
        per_second: how many units of it make a second.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        store: Store,
        prefix: Path,
        digits: int,
        per_second: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._digits = digits
        self._second = per_second
        self._monotonic = monotonic
        self._begin = 0
        self._anew = 0.0  # when to look at the beginning again

    async def due(self, now: float, limit: int) -> list[Entry]:
        """Returns entries whose moment is not after now, seconds since 1970, the oldest first, at most so many."""
        last = int(now * self._second)
        asked = self._monotonic()
        if asked >= self._anew:
            found = await self._between(0, last, limit)
            took = self._monotonic() - asked
            self._anew = asked + min(max(took * _SHARE, _LEAST_SECONDS), _MOST_SECONDS)
        else:
            found = await self._gallop(last, limit)
        self._begin = int(found[0].path[len(self._prefix)]) if found else last
        return found

    async def _gallop(self, last: int, limit: int) -> list[Entry]:
        """Looks at a second, at the two after it, and so on: where very many are due, few are passed over."""
        found: list[Entry] = []
        late = _LATE_SECONDS * self._second
        begin, width = max(min(self._begin, last) - late, 0), late + self._second
        while len(found) < limit and begin <= last:
            end = min(begin + width - 1, last)
            found += await self._between(begin, end, limit - len(found))
            begin, width = end + 1, width * 2
        return found

    async def _between(self, first: int, last: int, limit: int) -> list[Entry]:
        # Nothing stands at the path of a moment itself, so that what is behind it is all of that moment.
        after, until = (_moment(self._prefix, self._digits, each) for each in (first, last + 1))
        return await self._store.scan(self._prefix, after=after, until=until, limit=limit)


def _moment(prefix: Path, digits: int, moment: int) -> Path:
    return (*prefix, Plain(f"{moment:0{digits}}"))

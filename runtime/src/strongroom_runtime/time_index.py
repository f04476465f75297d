"""Entries that stand in the order of a time, of which those that are due are looked at.

One that cannot be read, or leads to what cannot be read, keeps none of the others waiting: it is passed over.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from strongroom_runtime.storage import Entry, Path, Plain, Store, going_past, unreadable

# Of the time of an entry: how much earlier it may be than what was seen last, as transactions take a while.
_LATE_SECONDS = 2
_LEAST_SECONDS, _MOST_SECONDS = 5.0, 60.0  # between looks at the beginning
_SHARE = 50  # of the time that may be spent on those: a fiftieth
_PAGE = 100
_PASSED_SECONDS = 60.0  # for which what was passed over is left out
_MOST_PASSED = 1_000
_AHEAD_SECONDS = 60


class Rest:
    """Knows until when nothing will be due, for as long as nothing of the service changes: looks are spared then.

    It is asked for once two looks in a row found nothing and nothing changed between them, and for the next minute
    only: etcd counts all keys of a range.

    Args:
        store: where the entries are.
        prefix: of them all; the next segment is a time.
        digits: of a time, with leading zeros.
        per_second: how many units of it make a second.
    """

    def __init__(self, store: Store, prefix: Path, digits: int, per_second: int = 1) -> None:
        self._store = store
        self._prefix = prefix
        self._digits = digits
        self._ahead = _AHEAD_SECONDS * per_second
        self._seen: dict[Any, Any] | None = None

    def lasts(self, last: int) -> bool:
        """Returns whether it is certain that nothing is due up to a time."""
        made = self._store.made()
        return made is not None and last < made.get(self, 0)

    async def begin(self, made: dict[Any, Any] | None, last: int) -> None:
        """Notes that nothing is due.

        Args:
            made: `Store.made` from before that was looked for.
            last: up to which time.
        """
        if made is None or made is not self._seen:
            self._seen = made  # while things change, the next look may find something
            return
        after, until = (
            _moment(self._prefix, self._digits, each) for each in (last + 1, last + self._ahead)
        )
        entries = await self._store.scan(
            self._prefix, after=after, until=until, limit=1, past_unreadable=True
        )
        first = entries[0].path[len(self._prefix)] if entries else str(last + self._ahead)
        made[self] = int(first) if first.isdecimal() else 0


async def all_due(
    store: Store, prefix: Path, digits: int, behind: int, last: int, rest: Rest | None = None
) -> AsyncIterator[Entry]:
    """Yields the entries below a prefix whose next segment is a time, the oldest first, up to one in the same units.

    For few of them; a `TimeIndex` is for those of whom a page is taken again and again. The work on what each leads
    to belongs within `going_past`.

    Args:
        store: where the entries are.
        prefix: of them all.
        digits: of a time, with leading zeros.
        behind: how many segments there are behind the time.
        last: the latest time.
        rest: spares looks where nothing is due; None where they are rare.
    """
    if rest is not None and rest.lasts(last):
        return
    made, found = store.made(), False
    after: Path | None = None
    until = _moment(prefix, digits, last + 1)
    while entries := await store.scan(
        prefix, after=after, until=until, limit=_PAGE, past_unreadable=True
    ):
        found = True
        for entry in entries:
            if _fits(store, entry.path, len(prefix), digits, behind):
                yield entry
        after = entries[-1].path
    if rest is not None and not found:
        await rest.begin(made, last)


class TimeIndex:
    """Looks at the entries below a prefix whose next segment is a time, the oldest first.

    etcd counts all keys of a range, however few of them it is to return, those among them that were deleted since
    its last compaction. So a look ends at what is due, which leaves out all that is to come, and begins a little
    before where the last one found something, which leaves out what was deleted since. What another replica files
    before that is found by a look at the beginning, every few seconds. Where nothing is due and nothing changes, it
    does not look at all (`Rest`).

    Args:
        store: where the entries are.
        prefix: of them all.
        digits: of a time, with leading zeros.
        behind: how many segments there are behind the time.
        per_second: how many units of it make a second.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        store: Store,
        prefix: Path,
        digits: int,
        behind: int = 1,
        per_second: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._digits = digits
        self._behind = behind
        self._second = per_second
        self._monotonic = monotonic
        self._begin = 0
        self._anew = 0.0  # when to look at the beginning again
        self._passed: dict[Path, float] = {}  # what is left out, and until when
        self._rest = Rest(store, prefix, digits, per_second)

    async def due(self, now: float, limit: int) -> list[Entry]:
        """Returns entries whose moment is not after now, seconds since 1970, the oldest first, at most so many."""
        last = int(now * self._second)
        asked = self._monotonic()
        self._passed = {path: until for path, until in self._passed.items() if until > asked}
        if not self._passed and self._rest.lasts(last):
            return []
        made = self._store.made()
        if asked >= self._anew:
            found = await self._between(0, last, limit)
            took = self._monotonic() - asked
            self._anew = asked + min(max(took * _SHARE, _LEAST_SECONDS), _MOST_SECONDS)
        else:
            found = await self._gallop(last, limit)
        self._begin = int(found[0].path[len(self._prefix)]) if found else last
        if not found and not self._passed:
            await self._rest.begin(made, last)
        return found

    def pass_over(self, path: Path) -> None:
        """Leaves an entry out for a minute, so that it does not take the place of one that can be worked on."""
        if len(self._passed) < _MOST_PASSED:
            self._passed[path] = self._monotonic() + _PASSED_SECONDS

    @contextlib.contextmanager
    def going_past(self, path: Path) -> Iterator[None]:
        """As the function of that name; the entry is left out for a minute."""
        with going_past(self._store, path):
            try:
                yield
            except Exception as error:
                if unreadable(error):
                    self.pass_over(path)
                raise

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
        entries = await self._store.scan(
            self._prefix,
            after=after,
            until=until,
            limit=limit + len(self._passed),
            past_unreadable=True,
        )
        found: list[Entry] = []
        for entry in entries:
            if entry.path in self._passed:
                continue
            if _fits(self._store, entry.path, len(self._prefix), self._digits, self._behind):
                found.append(entry)
            else:
                self.pass_over(entry.path)
        return found[:limit]


def _moment(prefix: Path, digits: int, moment: int) -> Path:
    return (*prefix, Plain(f"{moment:0{digits}}"))


def _fits(store: Store, path: Path, depth: int, digits: int, behind: int) -> bool:
    """Returns whether a path is one of an index; one that is not is noted."""
    text = path[depth]
    if len(path) == depth + 1 + behind and len(text) == digits and text.isdecimal():
        return True
    store.note_unreadable(path, ValueError())
    return False

"""Reading a log line by line: which stretches of which chains stand where, and what is wrong within them.

Memory holds one stretch for each chain and file, however long they are.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from strongroom_audit.domain.chain import CONTINUE, END, START, is_signed
from strongroom_audit.domain.keys import MOST_KEYS, Certificate, Trust, is_public

_MOST_STRETCHES = 200_000  # nobody has so many processes and files: somebody makes them up
_MOST_PROBLEMS = 1_000
_OWN = "chain-"


# What may come of decoding whatever stands in a file.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Link(msgspec.Struct):
    writer: str
    seq: _Count
    prev: str


class _Line(msgspec.Struct):
    chain: _Link
    type: str = ""
    time: str = ""


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a chain stood: its entries, the hash of the last, and whether its writer had left the file."""

    entries: _Count
    hash: str
    gone: bool = False


class _Signed(msgspec.Struct):
    """What an entry of the chain itself has besides; earlier versions had only `after`, what a chain follows."""

    key: str = ""
    signature: str = ""
    certificate: Certificate | None = None
    device: str = ""
    after: str = ""
    seen: dict[str, Head] = {}


_decode = msgspec.json.Decoder(_Line).decode
_decode_signed = msgspec.json.Decoder(_Signed).decode


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that no crash explains. `line` is 0 where it is of no line."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        if not self.line:
            return f"{self.file}: {self.text}" if self.file else self.text
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Sight:
    """What a seal says of another chain in its file."""

    file: str
    line: int
    key: str
    writer: str
    head: Head


@dataclass(slots=True)
class Use:
    """Where a key was first used in a stretch, and how many entries of the chain it vouches for."""

    line: int
    seq: int
    covers: int


@dataclass(slots=True)
class Stretch:
    """Entries of one chain that stand in one file, in order.

    Args:
        file: where.
        line: of the first.
        writer: whose chain.
        first: number of the first entry.
        prev: the hash that it names for the one before.
        opens: it begins with an entry that begins a chain, or its part of a file.
        began: the time of the first.
        hash: of the last.
        next: the number that comes after it.
        last_line: its line.
        until: the latest time of them.
        ended: it is the end of the chain.
        device: of the chain, where an entry says it.
        after: what the chain follows; of earlier versions.
        signed: by key.
        unsealed: the time of the first entry behind the last seal; empty for none.
    """

    file: str
    line: int
    writer: str
    first: int
    prev: str
    opens: bool
    began: str
    hash: str = ""
    next: int = 0
    last_line: int = 0
    until: str = ""
    ended: bool = False
    device: str = ""
    after: str = ""
    signed: dict[str, Use] = field(default_factory=dict)
    unsealed: str = ""


class Scan:
    """What was read so far.

    Args:
        hashes: what certain entries must be, by chain and number.
        trust: learns the certificates that stand in the log.
    """

    def __init__(self, hashes: Mapping[str, Mapping[int, str]], trust: Trust) -> None:
        self.lines = 0
        self.stretches: list[Stretch] = []
        self.sights: list[Sight] = []
        self.problems: list[Problem] = []
        self.more_problems = 0
        self.notices: list[str] = []
        self._hashes = hashes
        self._trust = trust
        self._keys: set[str] = set()

    def problem(self, file: str, line: int, text: str) -> None:
        """Notes a problem; of very many the first."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(file, line, text))
        else:
            self.more_problems += 1

    def notice(self, text: str) -> None:
        """Notes what an auditor should know; of very much the first."""
        if len(self.notices) < _MOST_PROBLEMS:
            self.notices.append(text)

    def read(self, file: str, lines: Iterable[bytes]) -> None:
        """Reads a file.

        Args:
            file: its name.
            lines: with their newlines.
        """
        current: dict[str, Stretch] = {}
        hashes_of, nothing = self._hashes.get, dict[int, str]()
        for number, raw in enumerate(lines, 1):
            line = raw[:-1] if raw.endswith(b"\n") else raw
            if not line:
                continue  # a write that failed half-way may leave one
            try:
                entry = _decode(line)
            except _UNREADABLE:
                self._no_entry(file, number, raw)
                continue
            self.lines += 1
            link = entry.chain
            stretch = current.get(link.writer)
            if (
                stretch is None
                or link.seq != stretch.next
                or link.prev != stretch.hash
                or stretch.ended
                or entry.type == CONTINUE
            ):
                stretch = self._turn(file, number, entry, current)
                if stretch is None:
                    continue
            digest = hashlib.sha256(line).hexdigest()
            if hashes_of(link.writer, nothing).get(link.seq, digest) != digest:
                self.problem(
                    file, number, f"entry {_name(link)} is not the one that the platform recorded"
                )
            stretch.hash, stretch.next, stretch.last_line = digest, link.seq + 1, number
            if entry.time > stretch.until:
                stretch.until = entry.time
            if entry.type.startswith(_OWN):
                self._own(stretch, entry, line)
            elif not stretch.unsealed:
                stretch.unsealed = entry.time

    def _turn(
        self, file: str, number: int, entry: _Line, current: dict[str, Stretch]
    ) -> Stretch | None:
        """Returns the stretch that an entry goes on with which does not simply follow; None for one to pass over."""
        link = entry.chain
        known = current.get(link.writer)
        opens = entry.type == CONTINUE or (entry.type == START and link.seq == 0)
        if known is not None and not opens:
            if link.seq < known.next:
                self.problem(file, number, f"entry {_name(link)} stands out of order, or twice")
                return None
            if link.seq > known.next:
                self.problem(
                    file, number, missing(link.writer, known.next, link.seq) + " before it"
                )
            elif known.ended:
                self.problem(
                    file, number, f"entry {_name(link)} stands behind the end of its chain"
                )
            else:
                self.problem(
                    file,
                    known.last_line,
                    f"entry {link.seq - 1} of {link.writer} was changed:"
                    f" line {number} has another hash of it",
                )
            return known
        if len(self.stretches) >= _MOST_STRETCHES:
            self.problem(file, number, "there are too many chains; this one is passed over")
            return None
        stretch = Stretch(file, number, link.writer, link.seq, link.prev, opens, entry.time)
        current[link.writer] = stretch
        self.stretches.append(stretch)
        return stretch

    def _own(self, stretch: Stretch, entry: _Line, line: bytes) -> None:
        """Takes an entry of the chain itself."""
        try:
            signed = _decode_signed(line)
        except _UNREADABLE:
            signed = _Signed()
        if entry.type == START and not signed.signature:
            stretch.after = signed.after
            return
        if not is_public(signed.key) or not is_signed(line, signed.key, signed.signature):
            self.problem(stretch.file, stretch.last_line, f"the signature of {entry.type} is wrong")
            return
        if signed.certificate is not None:
            self._trust.learn(signed.key, signed.certificate)
        if signed.key not in self._keys:
            if len(self._keys) >= MOST_KEYS:
                self.problem(stretch.file, stretch.last_line, "there are too many keys")
                return
            self._keys.add(signed.key)
        use = stretch.signed.setdefault(signed.key, Use(stretch.last_line, stretch.next - 1, 0))
        use.covers = stretch.next
        stretch.unsealed = ""
        stretch.device = signed.device or stretch.device
        stretch.ended = entry.type == END
        if len(self.sights) < _MOST_STRETCHES:
            at = (stretch.file, stretch.last_line, signed.key)
            self.sights += [Sight(*at, writer, head) for writer, head in signed.seen.items()]

    def _no_entry(self, file: str, number: int, raw: bytes) -> None:
        if not raw.endswith(b"\n"):
            self.notice(f"{file}:{number}: the last line is not complete (yet)")
        elif b"\0" in raw or _is_cut(raw[:-1]):
            # No answer ever rested on it: what is acknowledged is whole.
            self.notice(f"{file}:{number}: a crash cut a line short")
        else:
            self.problem(file, number, "is not an audit entry")


class OpenChains:
    """Where the chains stand that did not end within some lines."""

    def __init__(self) -> None:
        self._heads: dict[str, Head] = {}
        self._signing: set[str] = set()

    @property
    def signing(self) -> set[str]:
        """The writers of those that sign, which those of earlier versions do not."""
        return self._signing & self._heads.keys()

    def read(self, lines: Iterable[bytes]) -> None:
        """Takes in lines, without their newlines."""
        for line in lines:
            try:
                entry = _decode(line)
            except _UNREADABLE:
                continue
            link = entry.chain
            self._heads.pop(link.writer, None)
            if entry.type != END:
                self._heads[link.writer] = Head(link.seq + 1, hashlib.sha256(line).hexdigest())
            if entry.type.startswith(_OWN) and b'"signature":' in line:
                self._signing.add(link.writer)

    def heads(self, gone: Collection[str]) -> dict[str, Head]:
        """Returns them by writer, the one that went on last as the last; some of the writers have left the file."""
        return {
            writer: msgspec.structs.replace(head, gone=writer in gone)
            for writer, head in self._heads.items()
        }


def missing(writer: str, begin: int, end: int) -> str:
    """Says that entries are missing, from one number up to another."""
    if end - begin == 1:
        return f"entry {begin} of {writer} is missing"
    return f"entries {begin} to {end - 1} of {writer} are missing"


def _name(link: _Link) -> str:
    return f"{link.seq} of {link.writer}"


def _is_cut(line: bytes) -> bool:
    """Returns whether a line is the beginning of an entry."""
    if not line.startswith(b"{"):
        return False
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except (UnicodeDecodeError, RecursionError):
        return False
    return False

"""The hash chain of audit entries.

Each writer (one process, one device) has a chain of its own, so that processes can share a file without asking each
other. Every line ends with `"chain":{"writer":…,"seq":…,"prev":…}`, where `prev` is the SHA-256 of the line before
it in the chain, without its newline. A chain begins with an entry of type `chain-start`, with seq 0.

The chain shows changes, removals, insertions and reordering within it, unless the hashes were computed anew: they
are not keyed. Cutting off its end shows only against a later line or a hash kept elsewhere, and so does a whole chain
that is missing.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

GENESIS = "0" * 64


@dataclass(slots=True)
class Chain:
    """Where a writer's chain stands. `after` is the last hash of the chain that it continues in another file."""

    writer: str
    seq: int = 0
    prev: str = GENESIS

    def start_entry(self, time: str, after: str = "") -> bytes:
        """Returns the JSON object that begins a chain."""
        entry = {"time": time, "type": "chain-start"}
        return msgspec.json.encode({**entry, "after": after} if after else entry)

    def link(self, entries: Iterable[bytes]) -> "Linked":
        """Returns the lines for JSON objects, and the chain as it stands once they are written.

        This chain does not change, so that a failed write can be tried again with the same numbers.
        """
        lines: list[bytes] = []
        writer, seq, prev = self.writer.encode(), self.seq, self.prev
        for entry in entries:
            separator = b"" if entry == b"{}" else b","
            line = b'%b%b"chain":{"writer":"%b","seq":%d,"prev":"%b"}}' % (
                entry[:-1], separator, writer, seq, prev.encode()
            )  # fmt: skip
            lines.append(line)
            seq, prev = seq + 1, hashlib.sha256(line).hexdigest()
        lines.append(b"")
        return Linked(b"\n".join(lines), Chain(self.writer, seq, prev))


@dataclass(frozen=True, slots=True)
class Linked:
    """Lines that are ready to be written, and what the chain is afterwards."""

    data: bytes
    chain: Chain


@dataclass(slots=True)
class Report:
    """What a verification found.

    Args:
        lines: how many lines were read.
        chains: how many lines each writer's chain has.
        problems: what is wrong, each with its line number; empty where all holds.
    """

    lines: int = 0
    chains: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class _Link(msgspec.Struct):
    writer: str
    seq: int
    prev: str


class _Line(msgspec.Struct):
    chain: _Link


def verify(lines: Iterable[bytes]) -> Report:
    """Returns what holds of a log, given its lines without newlines.

    Empty lines are passed over: a write that failed half-way may leave one.
    """
    report = Report()
    expected: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        report.lines += 1
        try:
            link = msgspec.json.decode(line, type=_Line).chain
        except msgspec.DecodeError:
            report.problems.append(f"line {number}: not an audit entry")
            continue
        seq, prev = expected.get(link.writer, (0, GENESIS))
        if link.seq != seq:
            report.problems.append(
                f"line {number}: entry {link.seq} of writer {link.writer} stands where {seq} should"
            )
        elif link.prev != prev:
            report.problems.append(f"line {number}: the entry before it was changed")
        expected[link.writer] = (link.seq + 1, hashlib.sha256(line).hexdigest())
        report.chains[link.writer] = report.chains.get(link.writer, 0) + 1
    return report

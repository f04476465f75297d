"""The hash chain of audit entries, and its seals.

Each writer (one process, one device) has a chain of its own, so that processes can share a file without asking each
other. Every line ends with `"chain":{"writer":…,"seq":…,"prev":…}`, where `prev` is the SHA-256 of the line before
it in the chain, without its newline. The hashes alone show nothing to whoever can compute them anew, so a chain has
entries of its own, which are signed:

- `chain-start`, with seq 0, begins it;
- `chain-seal` follows within a second upon whatever was written;
- `chain-continue` is its first entry in another file;
- `chain-end` is its last, of a process that ended in order.

One seal in each file has `seen` as well: where the other chains in it stood, and whether their writers had left it.
It vouches for what a process wrote last that was killed.

A signature is over a label and the line with an empty text in the place of the signature. By the hashes it covers all
that stands before it in the chain.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from strongroom_audit.domain.keys import Signs, verifies

GENESIS = "0" * 64
START, SEAL, CONTINUE, END = "chain-start", "chain-seal", "chain-continue", "chain-end"
_LABEL = b"strongroom audit entry v1\n"
_UNSIGNED = b'"signature":""'
_SIGNATURE_DIGITS = 128


@dataclass(slots=True)
class Chain:
    """Where a writer's chain stands: how many entries it has, and the hash of the last."""

    writer: str
    seq: int = 0
    prev: str = GENESIS

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

    def seal(self, kind: str, time: str, key: Signs, **about: Any) -> "Linked":
        """Returns the line of an entry that vouches for all before it.

        Args:
            kind: its type, one of the four.
            time: now, RFC 3339.
            key: signs it.
            about: further members.
        """
        entry = {"time": time, "type": kind, **about, "key": key.public, "signature": ""}
        unsigned = self.link([msgspec.json.encode(entry)]).data[:-1]
        signature = b'"signature":"%b"' % key.sign(_LABEL + unsigned).encode()
        # No value has such quotes: JSON puts a backslash before each.
        line = unsigned.replace(_UNSIGNED, signature, 1)
        return Linked(
            line + b"\n", Chain(self.writer, self.seq + 1, hashlib.sha256(line).hexdigest())
        )


@dataclass(slots=True)
class Linked:
    """Lines that are ready to be written, and what the chain is afterwards."""

    data: bytes
    chain: Chain


def is_signed(line: bytes, key: str, signature: str) -> bool:
    """Returns whether a line was signed by a key; both are as they stand in it."""
    if len(signature) != _SIGNATURE_DIGITS:
        return False
    before, found, after = line.partition(b'"signature":"%b"' % signature.encode())
    return bool(found) and verifies(key, signature, _LABEL + before + _UNSIGNED + after)

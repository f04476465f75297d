"""What concurrent clients did and were told, and when."""

import enum
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NEVER = float("inf")


class Outcome(enum.Enum):
    """What a client knows of an operation."""

    OK = "ok"
    FAILED = "failed"  # for certain: it had no effect and never will
    UNKNOWN = "unknown"  # it may have had its effect, may have it later, or never


@dataclass(slots=True)
class Operation:
    """Something that one client did.

    Args:
        client: who did it; a client does one thing at a time.
        name: what was done, such as `write`.
        key: to what, such as the path of a secret. Different keys have nothing to do with each other.
        argument: what was asked for.
        began: when it was sent, by one monotonic clock.
        result: what was answered.
        ended: when that was known.
        outcome: what is known of it.
        note: where, and what was said, for whoever reads the history.
    """

    client: int
    name: str
    key: str
    argument: Any = None
    began: float = 0.0
    result: Any = None
    ended: float = NEVER
    outcome: Outcome = Outcome.UNKNOWN
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def may_count(self) -> bool:
        """Whether it may have an effect."""
        return self.outcome is not Outcome.FAILED

    @property
    def until(self) -> float:
        """When it has its effect at the latest."""
        return NEVER if self.outcome is Outcome.UNKNOWN else self.ended

    def precedes(self, other: "Operation") -> bool:
        """Returns whether it was over before another one began."""
        return self.until < other.began

    def complete(self, outcome: Outcome, result: Any = None, note: str = "") -> None:
        """Notes how it went."""
        self.ended = time.monotonic()
        self.outcome, self.result, self.note = outcome, result, note

    def __str__(self) -> str:
        ended = "" if self.ended == NEVER else f"{self.ended:.4f}"
        return (
            f"[{self.began:.4f}-{ended}] {self.name} {self.key} {self.argument!r}:"
            f" {self.outcome.value} {self.result!r} ({self.note})"
        )


@dataclass
class History:
    """The operations of all clients, in the order in which they began.

    Args:
        operations: these.
        request_ids: by which requests that were answered are named in the audit log.
    """

    operations: list[Operation] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _clients: Iterator[int] = field(default_factory=itertools.count)

    def client(self) -> int:
        """Returns a number for a client."""
        return next(self._clients)

    def begin(self, client: int, name: str, key: str, argument: Any = None) -> Operation:
        """Returns an operation that begins now."""
        operation = Operation(client, name, key, argument)
        with self._lock:
            operation.began = time.monotonic()
            self.operations.append(operation)
        return operation

    def of(self, *names: str) -> list[Operation]:
        """Returns the operations with some names."""
        return [o for o in self.operations if o.name in names]

    def by_key(self, *names: str) -> dict[str, list[Operation]]:
        """Returns the operations with some names, those of each key together."""
        found: dict[str, list[Operation]] = {}
        for operation in self.of(*names):
            found.setdefault(operation.key, []).append(operation)
        return found

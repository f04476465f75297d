"""Whether each operation can have happened at one moment between its call and its answer.

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993), with the memory of Lowe ("Testing for
linearizability", 2017) of what was done in which state and led nowhere. Objects are judged one by one: a history is
linearizable where that of each object is (Herlihy and Wing, "Linearizability", 1990).
"""

from collections.abc import Hashable, Sequence
from typing import Protocol

from tests.histories.history import NEVER, Operation

_MOST_STEPS = 500_000


class Model(Protocol):
    """An object as it would be if one client had it alone."""

    def initial(self) -> Hashable:
        """Returns the state before everything."""
        ...

    def step(self, state: Hashable, operation: Operation) -> Hashable | None:
        """Returns the state behind an operation; None where it cannot have gone as it did."""
        ...


class VersionedRegister:
    """A secret of KV version 2: each write makes the next version, and may name the one that it follows.

    A state is (version, value). `write` has the argument (value, cas), with None for no condition, and results in a
    version. `read` results in a state.
    """

    def initial(self) -> Hashable:
        return (0, None)

    def step(self, state: Hashable, operation: Operation) -> Hashable | None:
        assert isinstance(state, tuple)
        if operation.name == "read":
            return state if operation.result == state else None
        version: int = state[0]
        value, cas = operation.argument
        written = (version + 1, value) if cas in (None, version) else None
        if operation.ok:
            return written if operation.result == version + 1 else None
        return written or state


class TooHardError(Exception):
    """The search was given up."""


def linearizable(model: Model, operations: Sequence[Operation]) -> bool:
    """Returns whether there is an order of operations on one object that explains all answers.

    Args:
        model: of the object.
        operations: those that had an effect, or may have one.

    Raises:
        TooHardError: too much is possible to try it all.
    """
    calls = sorted(operations, key=lambda o: o.began)
    certain = sum(1 << number for number, call in enumerate(calls) if call.until != NEVER)
    tried: set[tuple[int, Hashable]] = set()
    # What was done, as bits; the state behind it; what is to be tried next, the last first.
    stack = [(0, model.initial(), _candidates(calls, 0))]
    while stack:
        done, state, candidates = stack[-1]
        if done & certain == certain:
            return True
        if not candidates:
            stack.pop()
            continue
        number = candidates.pop()
        following = done | 1 << number
        after = model.step(state, calls[number])
        if after is None or (following, after) in tried:
            continue
        tried.add((following, after))
        if len(tried) > _MOST_STEPS:
            raise TooHardError
        stack.append((following, after, _candidates(calls, following)))
    return False


def _candidates(calls: Sequence[Operation], done: int) -> list[int]:
    """Returns what may come next: what began before anything that is not done was over. The first over comes last."""
    found: list[int] = []
    first_end = NEVER
    for number in range((~done & (done + 1)).bit_length() - 1, len(calls)):
        call = calls[number]
        if call.began > first_end:
            break
        if not done >> number & 1:
            found.append(number)
            first_end = min(first_end, call.until)
    return sorted(found, key=lambda n: calls[n].until, reverse=True)

"""The checker accepts what some order explains, and nothing else."""

import itertools
import random

import pytest
from tests.histories.history import NEVER, Operation, Outcome
from tests.histories.linearizability import VersionedRegister, linearizable

MODEL = VersionedRegister()


def write(
    began: float, ended: float, value: int, version: int | None = None, cas: int | None = None
) -> Operation:
    """Returns a write; one without a version is one whose outcome is not known."""
    outcome = Outcome.UNKNOWN if version is None else Outcome.OK
    return Operation(0, "write", "k", (value, cas), began, version, ended, outcome)


def read(began: float, ended: float, version: int, value: int | None) -> Operation:
    return Operation(0, "read", "k", None, began, (version, value), ended, Outcome.OK)


GOOD = {
    "nothing": [],
    "one after the other": [write(0, 1, 7, 1), read(2, 3, 1, 7), write(4, 5, 8, 2), read(6, 7, 2, 8)],
    "a read beside a write sees it": [write(0, 9, 7, 1), read(1, 2, 1, 7)],
    "a read beside a write does not see it": [write(0, 9, 7, 1), read(1, 2, 0, None)],
    "writes at once, the later one first": [write(0, 9, 7, 2), write(1, 8, 8, 1)],
    "an unknown write took place late": [
        write(0, 1, 7), write(2, 3, 8, 1), read(4, 5, 1, 8), read(6, 7, 2, 7)
    ],
    "an unknown write never took place": [write(0, 1, 7), write(2, 3, 8, 1), read(4, 5, 1, 8)],
    "an unknown condition failed": [write(0, 1, 7, 1), write(2, 3, 8, cas=0), read(4, 5, 1, 7)],
}  # fmt: skip
BAD = {
    "a read of what was replaced": [write(0, 1, 7, 1), write(2, 3, 8, 2), read(4, 5, 1, 7)],
    "a read of nothing": [write(0, 1, 7, 1), read(2, 3, 0, None)],
    "a read of what comes later": [read(0, 1, 1, 7), write(2, 3, 7, 1)],
    "two reads that go back": [write(0, 9, 7, 1), read(1, 2, 1, 7), read(3, 4, 0, None)],
    "a version twice": [write(0, 9, 7, 1), write(1, 8, 8, 1)],
    "a version left out": [write(0, 1, 7, 1), write(2, 3, 8, 3)],
    "a condition that did not hold": [write(0, 1, 7, 1), write(2, 3, 8, 2, cas=0)],
    "two winners": [write(0, 9, 7, 1, cas=0), write(1, 8, 8, 2, cas=0)],
    "a lost write": [write(0, 1, 7, 1), write(2, 3, 8, 1), read(4, 5, 1, 8)],
    "an unknown write that took place twice": [
        write(0, 1, 7), read(2, 3, 1, 7), write(4, 5, 8, 2), read(6, 7, 3, 7)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_some_order_explains_is_linearizable(name: str) -> None:
    assert linearizable(MODEL, GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_what_no_order_explains_is_not(name: str) -> None:
    assert not linearizable(MODEL, BAD[name])


def explained(operations: list[Operation]) -> bool:
    """Says the same by trying every order of every choice of what took place."""
    certain = [o for o in operations if o.until != NEVER]
    unknown = [o for o in operations if o.until == NEVER]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            for order in itertools.permutations([*certain, *some]):
                if any(b.precedes(a) for a, b in itertools.combinations(order, 2)):
                    continue
                state = MODEL.initial()
                for each in order:
                    after = MODEL.step(state, each)
                    if after is None:
                        break
                    state = after
                else:
                    return True
    return False


def test_it_agrees_with_trying_every_order() -> None:
    chance = random.Random(7)
    verdicts = []
    for _ in range(600):
        operations = []
        for value in range(chance.randint(2, 5)):
            began = chance.uniform(0, 10)
            ended = began + chance.uniform(0, 5)
            if chance.random() < 0.4:
                seen = chance.randint(0, 2)
                value_seen = chance.randint(0, 3) if seen else None
                operations.append(read(began, ended, seen, value_seen))
            else:
                version = chance.choice([None, 1, 1, 2, 3])
                operations.append(
                    write(began, ended, value, version, chance.choice([None, None, 0, 1]))
                )
        verdicts.append(linearizable(MODEL, operations))
        assert verdicts[-1] == explained(operations), [str(o) for o in operations]
    assert {True, False} == set(verdicts)

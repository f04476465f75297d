"""Each check accepts a history that keeps the promise, and rejects each that does not."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.histories import promises
from tests.histories.history import NEVER, History, Operation, Outcome
from tests.histories.promises import CHECKS, Check, Versions

OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN


def done(
    began: float,
    ended: float,
    name: str,
    argument: Any = None,
    result: Any = None,
    outcome: Outcome = OK,
    key: str = "k",
) -> Operation:
    return Operation(0, name, key, argument, began, result, ended, outcome)


def lost(began: float, name: str, argument: Any = None, key: str = "k") -> Operation:
    """Returns one of which nothing is known."""
    return done(began, NEVER, name, argument, None, UNKNOWN, key)


TOKEN = done(0, 1, "create", result="k", key="")
CHILD = done(1, 2, "create", result="child", key="k")
V1, V2 = "vault:v1:x", "vault:v2:x"

KEPT: list[tuple[Check, list[Operation]]] = [
    (
        promises.secrets_are_linearizable,
        [done(0, 1, "write", (7, None), 1), done(2, 3, "read", result=(1, 7))],
    ),
    (
        promises.reads_see_what_was_acknowledged,
        [
            done(0, 1, "write", (7, None), 1), done(2, 9, "write", (8, None), 2),
            # One after the other, while a write is under way.
            done(3, 4, "glance", result=(2, 8)), done(5, 6, "glance", result=(1, 7)),
        ],
    ),
    (
        promises.conditions_are_judged_by_the_newest_version,
        [
            done(0, 1, "write", (7, None), 1), done(2, 3, "mismatch", (8, 0)),
            done(4, 9, "write", (9, None), 2), done(5, 6, "mismatch", (10, 1)),
        ],
    ),
    (
        promises.revoked_tokens_are_refused,
        [
            TOKEN, CHILD, done(3, 4, "use", result=True), done(5, 9, "revoke"),
            done(6, 7, "use", result=True), done(8, 10, "use", result=False),
            done(11, 12, "use", result=False, key="child"),
        ],
    ),
    (
        promises.revoked_tokens_are_refused,
        [TOKEN, lost(1, "revoke"), done(2, 3, "use", result=True), done(4, 5, "use", result=False)],
    ),
    (
        promises.uses_are_counted_exactly,
        [
            done(0, 1, "spend", 2, True), lost(2, "spend", 2), done(3, 4, "spend", 2, False),
        ],
    ),
    (
        promises.policies_bind,
        [
            done(0, 1, "try", 1, False), done(2, 3, "allow", 1), done(4, 5, "try", 1, True),
            done(6, 9, "allow", 2), done(7, 8, "try", 1, True), done(7, 8, "try", 1, False),
            lost(10, "allow", 3), done(11, 12, "try", 2, True), done(11, 12, "try", 3, True),
        ],
    ),
    (
        promises.mounts_are_gone,
        [
            done(0, 1, "look", result=False), done(2, 3, "put", True), done(4, 5, "look", result=True),
            done(6, 7, "disable", False), done(8, 9, "look", result=False),
        ],
    ),
    (
        promises.ciphertexts_open,
        [
            done(0, 1, "decrypt", V1, True), done(2, 3, "close", 2), done(4, 5, "decrypt", V1, False),
            done(4, 5, "verify", V2, True), lost(6, "close", 1), done(7, 8, "decrypt", V1, True),
        ],
    ),
    (
        promises.rotations_are_seen,
        [
            done(0, 9, "rotate", result=2), done(1, 2, "encrypt", result=V1),
            done(3, 4, "sign", result=V2), done(10, 11, "encrypt", result=V2),
        ],
    ),
    (
        promises.users_are_of_leases,
        [
            done(0, 1, "login", result=True), done(2, 5, "end"), done(3, 4, "login", result=False),
            done(6, 7, "login", result=False),
        ],
    ),
]  # fmt: skip
BROKEN: list[tuple[Check, list[Operation]]] = [
    (
        promises.secrets_are_linearizable,
        [done(0, 1, "write", (7, None), 1), done(2, 3, "read", result=(0, None))],
    ),
    (
        promises.reads_see_what_was_acknowledged,
        [
            done(0, 1, "write", (7, None), 1), done(2, 3, "write", (8, None), 2),
            done(4, 5, "glance", result=(1, 7)),
        ],
    ),
    (
        promises.reads_see_what_was_acknowledged,
        [done(0, 1, "write", (7, None), 1), done(2, 3, "glance", result=(1, 9))],
    ),
    (
        promises.reads_see_what_was_acknowledged,
        [done(0, 1, "write", (7, None), 1), done(2, 3, "glance", result=(2, 7))],
    ),
    (
        promises.reads_see_what_was_acknowledged,
        [
            done(0, 1, "write", (7, None), None, FAILED), done(2, 3, "glance", result=(1, 7)),
        ],
    ),
    (
        promises.conditions_are_judged_by_the_newest_version,
        [done(0, 1, "write", (7, None), 1), done(2, 3, "mismatch", (8, 1))],
    ),
    (
        promises.revoked_tokens_are_refused,
        [TOKEN, done(2, 3, "revoke"), done(4, 5, "use", result=True)],
    ),
    (
        promises.revoked_tokens_are_refused,
        [TOKEN, CHILD, done(2, 3, "revoke"), done(4, 5, "use", result=True, key="child")],
    ),
    (promises.revoked_tokens_are_refused, [TOKEN, done(2, 3, "use", result=False)]),
    (
        promises.revoked_tokens_are_refused,
        [TOKEN, done(2, 3, "use", result=False), done(4, 5, "revoke")],
    ),
    (
        promises.revoked_tokens_are_refused,
        [TOKEN, done(2, 3, "revoke", outcome=FAILED), done(4, 5, "use", result=False)],
    ),
    (
        promises.uses_are_counted_exactly,
        [done(0, 1, "spend", 1, True), done(0, 1, "spend", 1, True)],
    ),
    (
        promises.uses_are_counted_exactly,
        [done(0, 1, "spend", 2, True), done(2, 3, "spend", 2, False)],
    ),
    (
        promises.policies_bind,
        [done(0, 1, "allow", 1), done(2, 3, "allow", 2), done(4, 5, "try", 1, True)],
    ),
    (promises.policies_bind, [done(0, 1, "allow", 1), done(2, 3, "try", 1, False)]),
    (
        promises.policies_bind,
        [done(0, 1, "allow", 1), done(2, 3, "allow", 2, outcome=FAILED), done(4, 5, "try", 2, True)],
    ),
    (
        promises.mounts_are_gone,
        [done(0, 1, "put", True), done(2, 3, "disable", False), done(4, 5, "look", result=True)],
    ),
    (promises.mounts_are_gone, [done(0, 1, "put", True), done(2, 3, "look", result=False)]),
    (promises.ciphertexts_open, [done(0, 1, "decrypt", V1, False)]),
    (promises.ciphertexts_open, [done(0, 1, "close", 2), done(2, 3, "verify", V1, True)]),
    (
        promises.rotations_are_seen,
        [done(0, 1, "rotate", result=2), done(2, 3, "encrypt", result=V1)],
    ),
    (promises.rotations_are_seen, [done(0, 1, "sign", result=V2)]),
    (promises.users_are_of_leases, [done(0, 1, "end"), done(2, 3, "login", result=True)]),
    (promises.users_are_of_leases, [done(0, 1, "login", result=False)]),
]  # fmt: skip


def found(check: Check, operations: Sequence[Operation]) -> list[str]:
    return list(check(History(list(operations))))


@pytest.mark.parametrize(("check", "operations"), KEPT)
def test_a_promise_that_is_kept(check: Check, operations: list[Operation]) -> None:
    assert found(check, operations) == []


@pytest.mark.parametrize(("check", "operations"), BROKEN)
def test_a_promise_that_is_broken(check: Check, operations: list[Operation]) -> None:
    assert len(found(check, operations)) == 1


def test_every_check_is_tested_both_ways() -> None:
    assert {check for check, _ in KEPT} == {check for check, _ in BROKEN} == set(CHECKS)


WRITES = [
    done(0, 1, "write", (7, None), 1), lost(2, "write", (8, None)),
    done(3, 4, "write", (9, None), None, FAILED),
]  # fmt: skip


@pytest.mark.parametrize("versions", [{1: 7}, {1: 7, 2: 8}])
def test_what_was_acknowledged_is_kept(versions: dict[int, Any]) -> None:
    assert not list(promises.every_version_is_kept(History(list(WRITES)), {"k": versions}))


@pytest.mark.parametrize(
    "versions", [{}, {1: 8}, {1: 7, 3: 8}, {1: 7, 2: 7}, {1: 7, 2: 9}, {1: 7, 2: 10}, {2: 8}]
)
def test_what_is_not_kept(versions: dict[int, Any]) -> None:
    assert list(promises.every_version_is_kept(History(list(WRITES)), {"k": versions}))


def test_what_became_of_writes_is_noted() -> None:
    some = [lost(0, "write", (7, None)), lost(1, "write", (8, None))]
    promises.settle(History(some), {"k": {1: 8}})
    assert [(o.outcome, o.result) for o in some] == [(FAILED, None), (OK, 1)]


@pytest.mark.parametrize(
    ("told", "kept"),
    [([1, 2], True), ([1], False), ([1, 1, 2], False), ([2, 1], False), ([1, 2, 3], False)],
)
def test_a_watch_tells_of_everything_once(told: list[int], kept: bool) -> None:
    seen = [done(n, n, "told", "a watch", version) for n, version in enumerate(told)]
    versions: Versions = {"k": {1: 7, 2: 8}}
    problems = list(promises.watches_tell_everything_once(History(seen), versions))
    assert (not problems) == kept

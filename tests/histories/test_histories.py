"""Clients at several gateways, while processes, members of etcd and connections are hurt: every promise is kept.

Which faults these are differs from run to run; the folder that is left where a promise is broken has them in
`faults.log`. `python -m tests.histories.run` goes on for as long as it is told.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.histories.faults import FAULTS
from tests.histories.history import Outcome
from tests.histories.run import Ending, Play, play

_SECONDS = 20.0
# Members of etcd 3.5.1, which is what there is here, come to have different data when they are hurt.
_OF_MEMBERS = (
    "kill_member",
    "kill_majority",
    "stop_member",
    "cut_off_member",
    "keep_leader_from_noticing",
)
_FAULTS = tuple(name for name in FAULTS if name not in _OF_MEMBERS)


@pytest.fixture(scope="module")
def ending(shared_folder: Path) -> Iterator[Ending]:
    seed = str(random.randrange(1_000_000))
    yield play(shared_folder / f"seed-{seed}", Play(seed, _SECONDS, faults=_FAULTS))


def test_every_promise_is_kept_under_faults(ending: Ending) -> None:
    assert list(ending.problems()) == []


def test_the_clients_did_everything_there_is_to_judge(ending: Ending) -> None:
    done = {o.name for o in ending.history.operations if o.outcome is Outcome.OK}
    assert done >= {"write", "glance", "told", "use", "spend", "try", "look", "encrypt", "login"}
    assert ending.history.request_ids

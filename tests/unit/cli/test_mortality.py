"""Which server processes are dead, by the locks that they held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom_cli.mortality import Living


def started(descriptor: int) -> "subprocess.Popen[bytes]":
    """Starts a process that lives until its input ends, as a supervisor starts its servers."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    os.close(descriptor)
    return process


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path / "living")


def test_a_process_is_dead_when_it_has_ended_and_not_before(living: Living) -> None:
    assert living.dead() == []
    (one, descriptor), (two, other) = living.name(), living.name()
    # Not yet started, and started.
    assert living.dead() == []
    first, second = started(descriptor), started(other)
    assert living.dead() == []
    first.kill()
    first.wait()
    assert living.dead() == [one]
    assert living.dead() == [one]  # to look takes no lock away
    living.forget(one)
    assert living.dead() == []
    second.communicate()
    assert living.dead() == [two]


def test_who_comes_later_knows_the_dead_and_the_living(living: Living, tmp_path: Path) -> None:
    (one, descriptor), (_, other) = living.name(), living.name()
    first, second = started(descriptor), started(other)
    first.kill()
    first.wait()
    later = Living(tmp_path / "living")
    assert later.dead() == [one]
    second.communicate()


def test_a_process_that_was_never_started_is_dead(living: Living) -> None:
    name, descriptor = living.name()
    os.close(descriptor)
    assert living.dead() == [name]

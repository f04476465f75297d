"""Processes that end with the one that started them."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from strongroom_runtime.children import ending_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked for it")

PARENT = """
import subprocess, sys
from strongroom_runtime.children import ending_with_parent
child = subprocess.Popen(ending_with_parent(["/bin/sleep", "600"]), start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def command_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_the_command_is_run_with_its_arguments() -> None:
    command = ending_with_parent(["/bin/echo", "-n", "a b", ""])
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"a b "


def test_it_ends_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until(lambda: command_of(child).startswith(b"/bin/sleep"))
        parent.kill()
    until(lambda: not command_of(child))


def test_it_does_not_begin_where_the_parent_is_gone() -> None:
    command = ending_with_parent(["/bin/echo", "begun"])
    # Another process is its parent, as where ours had ended.
    between = ["/bin/sh", "-c", f"{shlex.join(command)}; true"]
    assert subprocess.run(between, capture_output=True, check=True).stdout == b""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

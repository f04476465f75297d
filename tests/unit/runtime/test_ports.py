"""Ports that are given to what is about to listen on them."""

import resource
import socket
import subprocess
import sys

import pytest

from strongroom_runtime import ports
from strongroom_runtime.ports import Ports, allow_connections

# Of no other range in the tests.
FIRST = 9_800


def test_each_port_is_given_once_before_any_comes_again() -> None:
    given = Ports(FIRST, FIRST + 20)
    assert sorted(given.free() for _ in range(20)) == list(range(FIRST, FIRST + 20))
    with pytest.raises(OSError, match="no port of loopback is free"):
        given.free()


def test_a_process_may_have_as_many_connections_as_its_user_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", FIRST + 21))
        assert Ports(FIRST + 21, FIRST + 23).free() == FIRST + 22


@pytest.mark.skipif(sys.platform != "linux", reason="names without files are Linux's")
def test_other_processes_are_not_given_it_until_a_minute_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere() -> str:
        code = f"from strongroom_runtime.ports import Ports; print(Ports({FIRST + 30}, {FIRST + 31}).free())"
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        ).stdout.strip()

    monkeypatch.setattr(ports, "_RESERVED_SECONDS", 0)
    given = Ports(FIRST + 30, FIRST + 31)
    assert given.free() == FIRST + 30
    assert elsewhere() == ""
    assert given.free() == FIRST + 30  # lets go of what it gave before, and takes it anew
    given.keep(FIRST + 30)
    with pytest.raises(OSError, match="no port"):
        given.free()  # what is kept is not let go of
    assert elsewhere() == ""
    given.keep(FIRST + 30)
    del given
    assert elsewhere() == str(FIRST + 30)

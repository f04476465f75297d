"""For all tests: machines that are busy take their time, and no test depends on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, settings

# Which examples are tried does not depend on chance: what a change broke fails with it, and with no later one.
# `--hypothesis-profile=exploring` looks for others.
_PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("exploring", derandomize=False, **_PATIENT)
settings.register_profile("repeatable", derandomize=True, database=None, **_PATIENT)
settings.load_profile("repeatable")

# What is tested is on this machine. Proxies of the environment are for what examples in other languages fetch.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join([*filter(None, [os.environ.get(_name)]), "127.0.0.1", "localhost"])

# What tests kill are processes, never the machine: what etcd has written is there without waiting for a disk.
os.environ.setdefault("ETCD_UNSAFE_NO_FSYNC", "true")

# As a server does: see strongroom_cli.serve.
grpc.aio.init_grpc_aio()


@pytest.fixture(scope="module")
def shared_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder for what the tests of a file share. It stays where one fails: an etcd takes 64 MiB and more."""
    folder, failed = tmp_path_factory.mktemp("shared"), request.session.testsfailed
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files that take minutes before those that fill what is left: nobody waits for one of them in the end.

    Those that share platforms come one after the other, so that these run no longer than they are of use.
    """
    sharing = {
        item.path
        for item in items
        if isinstance(item, pytest.Function) and "platforms" in item.fixturenames
    }
    items.sort(
        key=lambda item: (
            item.path.name != "test_two_platforms.py",
            "integration" not in item.path.parts,
            item.path in sharing,
        )
    )

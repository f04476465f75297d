"""One platform of each topology, shared by the tests that leave it as it was."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from tests.integration import mortal_dbcreds
from tests.integration.databases import Postgres, postgres
from tests.integration.platforms import TOPOLOGIES, Platform, start


# Not of the session: idle platforms take some of a small machine, and unit tests come after these.
@pytest.fixture(scope="package")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Platform]]:
    """Starts each when it is first asked for: a parameter of the package would end one to start the other."""
    with contextlib.ExitStack() as running:
        yield functools.cache(
            lambda topology: running.enter_context(
                start(tmp_path_factory.mktemp(topology), topology)
            )
        )


@pytest.fixture(params=TOPOLOGIES)
def platform(request: pytest.FixtureRequest, platforms: Callable[[str], Platform]) -> Platform:
    return platforms(request.param)


@pytest.fixture(scope="package")
def database() -> Iterator[Postgres]:
    """A PostgreSQL server, shared by the tests that leave it running."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def die() -> Iterator[mortal_dbcreds.Die]:
    """Runs a dbcreds service that kills itself: see `mortal_dbcreds`."""
    with mortal_dbcreds.processes() as die:
        yield die

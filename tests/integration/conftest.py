"""One platform of each topology, shared by the tests that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.integration.databases import Postgres, postgres
from tests.integration.platforms import TOPOLOGIES, Platform, start


@pytest.fixture(scope="session", params=TOPOLOGIES)
def platform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp(request.param), request.param) as platform:
        yield platform


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A PostgreSQL server, shared by the tests that leave it running."""
    with postgres() as server:
        yield server

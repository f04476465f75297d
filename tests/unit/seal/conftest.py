"""What tests of several seal processes begin with; each file says which `store` they share."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import TWO_OF_THREE, Auth, Process, processes, unseal


@pytest.fixture
def auth() -> Auth:
    return Auth()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def process(store: MemoryStore, auth: Auth, tmp_path: Path) -> AsyncIterator[Any]:
    async with processes(store, auth, tmp_path) as start:
        yield start


@pytest.fixture
async def unsealed(process: Any) -> tuple[Process, Process, list[str]]:
    """Two processes that people have unsealed, and the shares."""
    one, other = await process(), await process()
    made = await one("Initialize", **TWO_OF_THREE)
    for each in (one, other):
        await unseal(each, made.keys[:2])
    return one, other, list(made.keys)

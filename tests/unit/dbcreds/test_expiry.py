"""The work that nobody asks for lets everything else run."""

import asyncio

import pytest
from tests.unit.dbcreds.harness import Dbcreds
from tests.waiting import until

from strongroom_dbcreds.config import Config
from strongroom_dbcreds.leases.storage import Leases, Queue
from strongroom_runtime.errors import Kind, ServiceError


async def test_it_rests_though_it_was_woken_and_cannot_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Leases] = []

    async def refuse(leases: Leases) -> list[Queue]:
        looks.append(leases)
        if len(looks) > 100:  # nothing else would run any more, and this test not end
            raise asyncio.CancelledError
        raise ServiceError(Kind.SEALED, "sealed")

    monkeypatch.setattr(Leases, "queues", refuse)
    config = Config(clock_seconds=0.02, expiry_seconds=600)
    expiry = (await Dbcreds(config=config).prepare()).service.expiry
    expiry._revoker.wake.set()
    running = asyncio.create_task(expiry.run())
    await until(lambda: looks)
    await asyncio.sleep(0.01)
    assert len(looks) == 1
    running.cancel()

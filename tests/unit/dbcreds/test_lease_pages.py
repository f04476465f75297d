"""Reading the keys of many leases page by page."""

import pytest
from tests.fakes.store import MemoryStore

from strongroom_dbcreds.domain.leases import Lease, State
from strongroom_dbcreds.leases.storage import PAGE, Leases, new_key
from strongroom_runtime.storage import Plain, Transaction


@pytest.mark.parametrize("many", [0, 1, PAGE, PAGE + 1, 7 * PAGE + 3])
async def test_pages_have_every_lease_once(many: int) -> None:
    leases = Leases(MemoryStore())
    keys = {"app": {new_key() for _ in range(many)}, "other": {new_key() for _ in range(many // 3)}}
    for role, each in keys.items():
        for key in each:
            lease = Lease(
                f"database/creds/{role}/{key}", key, "m", role, "pg", "u", "t", State.ACTIVE,
                issued=1.0, expires=9.0, due=9.0, longest=8,
            )  # fmt: skip
            await leases.announce(lease, Transaction())
    everything = sorted(keys["app"] | keys["other"])

    for read in (leases.of_token, leases.of_mount):
        found: list[str] = []
        while page := await read(
            "t" if read == leases.of_token else "m", found[-1] if found else ""
        ):
            assert len(page) <= PAGE
            found += page
        assert found == everything

    for prefix, expected in (
        ("database/creds", everything),
        ("database/creds/app", sorted(keys["app"])),
    ):
        found, after = [], None
        while (page_of := await leases.below(prefix, after))[0]:
            page, after = page_of
            assert len(page) <= PAGE
            found += page
        assert sorted(found) == expected


async def test_nothing_is_looked_for_again_while_nothing_changes() -> None:
    store = MemoryStore()
    leases = Leases(store)

    async def look() -> None:
        await leases.refile()
        assert (await leases.queues(), await leases.failing()) == ([], [])

    await look()
    looks = store.looks
    await look()
    assert store.looks == looks
    await store.commit(Transaction(puts={(Plain("any"),): b""}))
    await look()
    assert store.looks > looks

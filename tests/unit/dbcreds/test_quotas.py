"""Bounds on the number of leases."""

import asyncio

import pytest_asyncio
from tests.unit.dbcreds.harness import OPERATOR, Dbcreds, refused

from strongroom_runtime.errors import Kind, ServiceError


@pytest_asyncio.fixture
async def dbcreds() -> Dbcreds:
    dbcreds = await Dbcreds().furnish()
    await dbcreds.role("other")
    return dbcreds


async def quota(dbcreds: Dbcreds, name: str, most: int, path: str = "", role: str = "") -> None:
    await dbcreds("WriteLeaseQuota", OPERATOR, name=name, max_leases=most, path=path, role=role)


async def test_a_quota_refuses_and_nothing_is_made(dbcreds: Dbcreds) -> None:
    await quota(dbcreds, "all", 2, "database")
    await dbcreds.creds()
    made = await dbcreds.creds("other")
    calls = len(dbcreds.database.calls)
    await refused(dbcreds.creds(), Kind.EXHAUSTED, "lease count quota exceeded")
    assert len(dbcreds.database.calls) == calls
    assert await dbcreds.count() == 2
    shown = await dbcreds("ReadLeaseQuota", name="all")
    assert (shown.path, shown.max_leases, shown.counter) == ("database/", 2, 2)
    await dbcreds("RevokeLease", lease_id=made.lease_id)
    await dbcreds.creds()


async def test_what_is_kept_of_a_quota_is_bounded(dbcreds: Dbcreds) -> None:
    await refused(quota(dbcreds, "q", 1, "x" * 513), Kind.INVALID, "path: may have at most 512")
    call = quota(dbcreds, "q", 1, "database/", "x" * 513)
    await refused(call, Kind.INVALID, "role: may have at most 512 characters")


async def test_the_most_specific_quota_binds(dbcreds: Dbcreds) -> None:
    await quota(dbcreds, "everything", 1)
    await quota(dbcreds, "mount", 3, "database/")
    await quota(dbcreds, "role", 1, "database/", "app")
    await dbcreds.creds()
    await refused(dbcreds.creds(), Kind.EXHAUSTED)
    for _ in range(2):
        await dbcreds.creds("other")
    await refused(dbcreds.creds("other"), Kind.EXHAUSTED)
    await dbcreds("DeleteLeaseQuota", name="mount")
    await refused(dbcreds.creds("other"), Kind.EXHAUSTED)
    await dbcreds("DeleteLeaseQuota", name="everything")
    await dbcreds.creds("other")
    assert list((await dbcreds("ListLeaseQuotas")).keys) == ["role"]


async def test_a_quota_is_exact_however_many_ask_at_once(dbcreds: Dbcreds) -> None:
    await quota(dbcreds, "all", 7, "database")
    replicas = [dbcreds, await dbcreds.twin().prepare(), await dbcreds.twin().prepare()]
    answers = await asyncio.gather(
        *(replicas[n % 3].creds() for n in range(60)), return_exceptions=True
    )
    assert sum(not isinstance(each, BaseException) for each in answers) == 7
    assert {each.kind for each in answers if isinstance(each, ServiceError)} == {Kind.EXHAUSTED}
    assert len(dbcreds.database.users) == await dbcreds.count() == 7


async def test_two_quotas_cannot_bind_the_same(dbcreds: Dbcreds) -> None:
    await quota(dbcreds, "a", 1, "database")
    await refused(quota(dbcreds, "b", 2, "database/"), Kind.INVALID, "another quota")
    await quota(dbcreds, "a", 2, "database")


async def test_what_failed_to_be_made_does_not_count(dbcreds: Dbcreds) -> None:
    await quota(dbcreds, "all", 1, "database")

    async def refuse(call: str) -> None:
        dbcreds.database.refuses = "no" if call == "create" else ""

    dbcreds.database.before = refuse
    await refused(dbcreds.creds(), Kind.INVALID, "no")
    dbcreds.database.before, dbcreds.database.refuses = None, ""
    await dbcreds.creds()

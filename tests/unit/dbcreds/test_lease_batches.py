"""Leases that end together: claimed and forgotten in few transactions, and none at the mercy of another."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tests.unit.dbcreds.harness import CONTEXT, OPERATOR, Dbcreds
from tests.unit.dbcreds.test_leases import Killed, MortalStore

from strongroom.dbcreds.v1 import lease_pb2
from strongroom_dbcreds.leases.storage import Leases
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.storage import Plain, Transaction


@pytest_asyncio.fixture
async def dbcreds() -> Dbcreds:
    return await Dbcreds().furnish()


async def some(dbcreds: Dbcreds, number: int = 16) -> list[Any]:
    return [await dbcreds.creds() for _ in range(number)]


def key(made: Any) -> str:
    return str(made.lease_id.rpartition("/")[2])


async def failing(dbcreds: Dbcreds) -> list[tuple[str, int, str]]:
    found = await dbcreds("ListFailingLeases", OPERATOR)
    return [(each.lease_id, each.attempts, each.error) for each in found.leases]


def once(dbcreds: Dbcreds, what: Any) -> None:
    """Does something just before the next transaction."""
    commit = dbcreds.store.commit

    async def first(transaction: Transaction) -> int:
        dbcreds.store.commit = commit  # type: ignore[method-assign]
        await what()
        return await commit(transaction)

    dbcreds.store.commit = first  # type: ignore[method-assign]


async def postpone(dbcreds: Dbcreds, made: Any) -> None:
    """Lets a lease last longer."""
    leases = Leases(dbcreds.store)
    kept = await leases.get(key(made))
    assert kept is not None
    later = dbcreds.service.clock.now() + 1000
    await leases.replace(kept, msgspec.structs.replace(kept.lease, expires=later, due=later))


async def test_sixteen_leases_take_two_transactions(dbcreds: Dbcreds) -> None:
    await some(dbcreds, 96)
    before = dbcreds.store.current
    await dbcreds.pass_time(3601)
    assert await dbcreds.nothing_left()
    assert dbcreds.store.current - before == 12


async def test_a_prefix_that_is_waited_for_takes_as_few(dbcreds: Dbcreds) -> None:
    await some(dbcreds, 96)
    before = dbcreds.store.current
    await dbcreds("RevokePrefix", prefix="database")
    assert await dbcreds.nothing_left()
    assert dbcreds.store.current - before == 3 + 12  # marked, and ended


async def test_each_lease_of_a_batch_has_its_event(dbcreds: Dbcreds) -> None:
    made = await some(dbcreds)
    seen: list[str] = []

    async def watch() -> None:
        method = "/strongroom.dbcreds.v1.LeaseService/WatchLeases"
        caller = LocalCaller(dbcreds.service.handlers)
        async for message in caller.stream(method, lease_pb2.WatchLeasesRequest(), CONTEXT):
            seen.extend(event.lease_id for event in message.events)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await dbcreds.pass_time(3601)
    await asyncio.sleep(0.01)
    task.cancel()
    assert sorted(seen) == sorted(each.lease_id for each in made)


async def test_a_user_that_cannot_be_removed_fails_alone(dbcreds: Dbcreds) -> None:
    made = await some(dbcreds)
    dbcreds.database.refused = {made[3].username}
    await dbcreds.pass_time(3601)
    assert list(dbcreds.database.users) == [made[3].username]
    assert await failing(dbcreds) == [(made[3].lease_id, 1, "role owns objects")]
    dbcreds.database.refused = set()
    await dbcreds.pass_time(3)
    assert await dbcreds.nothing_left()


async def test_a_user_whose_removal_hangs_keeps_no_other_waiting(dbcreds: Dbcreds) -> None:
    # Not so short that a busy machine gives it up before it is seen that the others do not wait.
    await dbcreds.role(revocation_timeout=5)
    made = await some(dbcreds)
    dbcreds.database.stuck = {made[3].username}
    dbcreds.clock.advance(3601)
    await dbcreds.service.expiry.step()
    async with asyncio.timeout(60):
        while await dbcreds.count() > 1:
            await asyncio.sleep(0)
    assert await failing(dbcreds) == []  # it is not over yet, and its fellows are forgotten
    later = await some(dbcreds)
    await dbcreds("RevokePrefix", prefix="database", sync=False)
    await dbcreds.service.expiry.step()
    async with asyncio.timeout(60):
        while await dbcreds.count() > 1:
            await dbcreds.service.expiry.step()
            await asyncio.sleep(0)
    await dbcreds.service.expiry.settle()
    ((lease_id, attempts, error),) = await failing(dbcreds)
    assert (lease_id, attempts) == (made[3].lease_id, 1)
    assert "in time" in error
    dbcreds.database.stuck = set()
    await dbcreds.pass_time(60)
    assert await dbcreds.nothing_left()
    drops = [dbcreds.database.drops(each.username) for each in (*made, *later)]
    assert drops == [1] * 32


async def test_a_lease_that_was_renewed_meanwhile_lives_and_the_others_end(
    dbcreds: Dbcreds,
) -> None:
    made = await some(dbcreds)
    dbcreds.clock.advance(3601)
    once(dbcreds, lambda: postpone(dbcreds, made[5]))
    await dbcreds.work()
    assert list(dbcreds.database.users) == [made[5].username]
    assert await dbcreds.count() == 1
    await dbcreds.pass_time(1001)
    assert await dbcreds.nothing_left()


async def test_a_lease_that_is_gone_meanwhile_spoils_no_record_of_the_others(
    dbcreds: Dbcreds,
) -> None:
    made = await some(dbcreds)

    async def forget(call: str) -> None:
        dbcreds.database.after = None
        await dbcreds.service.issuer._revoker.forget(key(made[5]))

    dbcreds.database.after = forget
    await dbcreds.pass_time(3601)
    assert await dbcreds.nothing_left()
    assert [dbcreds.database.drops(each.username) for each in made] == [1] * 16


async def test_three_replicas_drop_each_user_once(dbcreds: Dbcreds) -> None:
    twins = [await dbcreds.twin().prepare() for _ in range(2)]
    made = await some(dbcreds, 100)
    dbcreds.clock.advance(3601)
    await asyncio.gather(dbcreds.work(), *(twin.work() for twin in twins))
    assert await dbcreds.nothing_left()
    assert [dbcreds.database.drops(each.username) for each in made] == [1] * 100


async def test_a_record_that_does_not_open_stays_in_its_queue(dbcreds: Dbcreds) -> None:
    made = await some(dbcreds)
    for entry in await dbcreds.store.scan(("lease",)):
        if entry.path[-1] in (key(made[2]), key(made[9])):
            await dbcreds.store.commit(Transaction(puts={entry.path: b"broken"}))
    await dbcreds.pass_time(3601)
    assert set(dbcreds.database.users) == {made[2].username, made[9].username}
    assert await dbcreds.stored("queue") == 2
    await dbcreds.work()
    assert await dbcreds.stored("queue") == 2


@pytest.mark.parametrize("late", [False, True])
async def test_a_batch_whose_record_fails_is_done_again(dbcreds: Dbcreds, late: bool) -> None:
    made = await some(dbcreds)

    async def fail(_: str = "") -> None:
        dbcreds.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "etcd did not answer")

    dbcreds.clock.advance(3601)
    if late:
        dbcreds.database.after = fail
    else:
        await fail()
    await dbcreds.service.expiry.step()
    await dbcreds.service.expiry.settle()
    dbcreds.database.after = None
    assert await dbcreds.count() == 16
    assert len(dbcreds.database.users) == (0 if late else 16)
    await dbcreds.pass_time(60)
    assert await dbcreds.nothing_left()
    assert [dbcreds.database.drops(each.username) for each in made] == [2 if late else 1] * 16


@pytest.mark.parametrize("steps", range(13))
async def test_a_process_that_dies_at_any_step_of_a_batch_leaves_all_to_others(
    dbcreds: Dbcreds, steps: int
) -> None:
    """Of four leases: two steps for the claim, eight for the users, two for forgetting them."""
    made = await some(dbcreds, 4)
    dbcreds.clock.advance(3601)
    store = MortalStore(dbcreds.store, steps)
    mortal = dbcreds.twin(store=store)
    mortal.service.clock._set(dbcreds.service.clock.now(), dbcreds.clock.now())
    dbcreds.database.before = dbcreds.database.after = store.step
    with contextlib.suppress(Killed):
        await mortal.service.expiry.step()
        await mortal.service.expiry.settle()
    dbcreds.database.before = dbcreds.database.after = None
    assert await dbcreds.count() == (0 if steps >= 11 else 4)
    await dbcreds.pass_time(60)
    assert await dbcreds.nothing_left()
    assert all(dbcreds.database.drops(each.username) >= 1 for each in made)


async def test_records_that_do_not_open_keep_no_other_lease_from_ending(dbcreds: Dbcreds) -> None:
    broken = await some(dbcreds, 3 * dbcreds.config.parallel)
    for each in broken:
        dbcreds.store.broken.add((Plain("lease"), Plain(key(each))))
    dbcreds.clock.advance(1)
    await some(dbcreds, 5)
    dbcreds.clock.advance(3601)
    for _ in range(5):
        await dbcreds.service.expiry.step()
        await dbcreds.service.expiry.settle()
    assert set(dbcreds.database.users) == {each.username for each in broken}
    assert {path[-1] for path, _ in dbcreds.store.noted} == {key(each) for each in broken}

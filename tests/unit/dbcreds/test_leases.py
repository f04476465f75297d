"""Leases from their creation to their end, over a store and a database in memory."""

import asyncio
import contextlib
import datetime
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tests.fakes.store import MemoryStore
from tests.unit.dbcreds.harness import (
    CONTEXT,
    MOUNT,
    OPERATOR,
    STRANGER,
    Dbcreds,
    refused,
    texts,
)
from tests.waiting import until

from strongroom.dbcreds.v1 import connection_pb2, lease_pb2
from strongroom_dbcreds.config import Config
from strongroom_dbcreds.drivers.base import NewUser, NotReachedError, Password
from strongroom_dbcreds.leases.issue import GRACE_SECONDS
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.storage import Plain, Transaction


@pytest_asyncio.fixture
async def dbcreds() -> Dbcreds:
    return await Dbcreds().furnish()


async def test_a_user_lives_as_long_as_its_lease(dbcreds: Dbcreds) -> None:
    made = await dbcreds.creds()
    assert made.lease_id.startswith("database/creds/app/")
    assert (made.lease_duration, made.renewable) == (3600, True)
    assert list(dbcreds.database.users) == [made.username]
    found = await dbcreds("LookupLease", lease_id=made.lease_id)
    assert (found.id, found.path, found.ttl) == (made.lease_id, "database/creds/app", 3600)
    await dbcreds.pass_time(3599)
    assert dbcreds.database.users
    await dbcreds.pass_time(2)
    assert await dbcreds.nothing_left()
    await refused(dbcreds("LookupLease", OPERATOR, lease_id=made.lease_id), Kind.INVALID, "invalid")


async def test_the_database_ends_a_user_a_little_after_its_lease(dbcreds: Dbcreds) -> None:
    made = await dbcreds.creds()
    user = dbcreds.database.users[made.username]
    assert user.expiration.timestamp() == dbcreds.clock.now() + 3600 + 5


async def test_renewal_counts_from_now_and_is_capped(dbcreds: Dbcreds) -> None:
    await dbcreds.role(max_ttl=7200)
    made = await dbcreds.creds()
    await dbcreds.pass_time(3000)
    answer = await dbcreds("RenewLease", lease_id=made.lease_id)
    assert (answer.lease_id, answer.lease_duration) == (made.lease_id, 3600)
    answer = await dbcreds("RenewLease", lease_id=made.lease_id, increment=60)
    assert answer.lease_duration == 60
    answer = await dbcreds("RenewLease", lease_id=made.lease_id, increment=7200)
    assert answer.lease_duration == 4200
    assert "capped" in answer.warnings[0]
    await dbcreds.pass_time(4199)
    assert dbcreds.database.users
    await refused(
        dbcreds("RenewLease", lease_id=made.lease_id, increment=-1), Kind.INVALID, "increment"
    )
    await dbcreds.pass_time(2)
    assert await dbcreds.nothing_left()
    await refused(
        dbcreds("RenewLease", OPERATOR, lease_id=made.lease_id), Kind.INVALID, "not found"
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("late", [7000, 1000])
async def test_of_renewals_at_once_none_lets_the_database_end_a_user_before_its_lease(
    dbcreds: Dbcreds, when: str, late: int
) -> None:
    lease = await dbcreds.creds()
    twin = await dbcreds.twin().prepare()
    others = [9000]

    async def meanwhile(call: str) -> None:
        if call == "renew" and others:
            await twin("RenewLease", lease_id=lease.lease_id, increment=others.pop())

    setattr(dbcreds.database, when, meanwhile)
    with contextlib.suppress(ServiceError):
        await dbcreds("RenewLease", lease_id=lease.lease_id, increment=late)
    kept = await dbcreds("LookupLease", lease_id=lease.lease_id)
    end = dbcreds.database.ends[lease.username]
    assert end - GRACE_SECONDS == kept.expire_time.seconds


async def test_the_mount_as_it_is_now_caps_a_renewal(dbcreds: Dbcreds) -> None:
    made = await dbcreds.creds()
    tuned = msgspec.structs.replace(CONTEXT, mount=replace(MOUNT, max_lease_ttl=1000))
    answer = await dbcreds("RenewLease", tuned, lease_id=made.lease_id)
    assert answer.lease_duration == 1000
    moved = msgspec.structs.replace(CONTEXT, mount=replace(MOUNT, uuid="mount-2", max_lease_ttl=5))
    answer = await dbcreds("RenewLease", moved, lease_id=made.lease_id)
    assert answer.lease_duration == 3600


async def test_a_ttl_above_the_mounts_maximum_is_capped_and_said(dbcreds: Dbcreds) -> None:
    tuned = msgspec.structs.replace(CONTEXT, mount=replace(MOUNT, max_lease_ttl=100))
    made = await dbcreds.creds(context=tuned)
    assert made.lease_duration == 100
    assert "capped" in made.warnings[0]


async def test_a_lease_id_is_no_credential(dbcreds: Dbcreds) -> None:
    made = await dbcreds.creds()
    for method in ("LookupLease", "RevokeLease"):
        await refused(dbcreds(method, STRANGER, lease_id=made.lease_id), Kind.DENIED)
        await refused(dbcreds(method, STRANGER, lease_id="database/creds/app/none"), Kind.DENIED)
    # Clients whose lease ended with its token renew it with the next one, and must read that it is gone.
    for stranger in (made.lease_id, "database/creds/app/none"):
        renewed = dbcreds("RenewLease", STRANGER, lease_id=stranger)
        await refused(renewed, Kind.INVALID, "lease not found")
    other = msgspec.structs.replace(STRANGER, of_others=True)
    assert (await dbcreds("LookupLease", other, lease_id=made.lease_id)).id == made.lease_id
    # The random part alone, or behind another path, names nothing.
    key = made.lease_id.rpartition("/")[2]
    for wrong in (key, f"database/creds/other/{key}", f"x/{key}"):
        await refused(dbcreds("LookupLease", other, lease_id=wrong), Kind.INVALID, "invalid lease")
        await refused(dbcreds("RenewLease", other, lease_id=wrong), Kind.INVALID, "lease not found")


async def test_revocation_is_idempotent(dbcreds: Dbcreds) -> None:
    made = await dbcreds.creds()
    dbcreds.database.users.clear()  # by hand
    await dbcreds("RevokeLease", lease_id=made.lease_id)
    await dbcreds("RevokeLease", OPERATOR, lease_id=made.lease_id)
    assert await dbcreds.nothing_left()
    assert await dbcreds.count() == 0


async def test_revocation_without_waiting(dbcreds: Dbcreds) -> None:
    made = await dbcreds.creds()
    answer = await dbcreds("RevokeLease", lease_id=made.lease_id, sync=False)
    assert answer.status == 202
    assert dbcreds.database.users
    await dbcreds.work()
    assert await dbcreds.nothing_left()
    # As in OpenBao, what is gone is answered in the same way.
    answer = await dbcreds("RevokeLease", OPERATOR, lease_id=made.lease_id, sync=False)
    assert answer.status == 202


async def test_leases_are_listed_counted_and_revoked_by_prefix(dbcreds: Dbcreds) -> None:
    await dbcreds.role("other")
    for role in ("app", "app", "other"):
        await dbcreds.creds(role)
    assert list((await dbcreds("ListLeases")).keys) == ["database/"]
    names = (await dbcreds("ListLeases", prefix="database/creds/")).keys
    assert list(names) == ["app/", "other/"]
    counts = await dbcreds("CountLeases", OPERATOR)
    assert (counts.lease_count, dict(counts.counts)) == (3, {"database/": 3})
    await dbcreds("RevokePrefix", prefix="database/creds/ap")
    assert await dbcreds.count() == 3
    await dbcreds("RevokePrefix", prefix="database/creds/app")
    assert await dbcreds.count() == 1
    answer = await dbcreds("RevokePrefix", prefix="database", sync=False)
    assert answer.status == 202
    await dbcreds.work()
    assert await dbcreds.nothing_left()
    await refused(dbcreds("ListLeases"), Kind.NOT_FOUND)


async def pages(call: Any, prefix: str, limit: int) -> list[str]:
    """Returns all names, asked for page by page."""
    names: list[str] = []
    while more := list(
        (await call("ListLeases", prefix=prefix, limit=limit, after="".join(names[-1:]))).keys
    ):
        assert len(more) <= limit
        names += more
    return names


async def test_a_page_of_leases_is_read_without_the_others(dbcreds: Dbcreds) -> None:
    made = await asyncio.gather(*(dbcreds.creds() for _ in range(120)))
    keys = sorted(each.lease_id.rpartition("/")[2] for each in made)
    prefix = "database/creds/app"
    assert await pages(dbcreds, prefix, 50) == keys
    assert list((await dbcreds("ListLeases", prefix=prefix)).keys) == keys
    before = dbcreds.store.listed
    assert list((await dbcreds("ListLeases", prefix=prefix, after=keys[60], limit=1)).keys) == [
        keys[61]
    ]
    assert dbcreds.store.listed == before + 1
    assert list((await dbcreds("ListLeases", prefix=prefix, after="zzz/", limit=1)).keys) == []
    await refused(dbcreds("ListLeases", prefix="database/creds/none", limit=1), Kind.NOT_FOUND)
    assert await pages(dbcreds, "database/creds", 1) == ["app/"]


async def test_leases_of_an_earlier_version_are_listed_and_leave_nothing(dbcreds: Dbcreds) -> None:
    made = [await dbcreds.creds() for _ in range(20)]
    keys = sorted(each.lease_id.rpartition("/")[2] for each in made)
    prefix = "database/creds/app"
    for old in keys[::2]:
        index = (Plain("prefix"), *prefix.split("/"))
        change = Transaction(puts={(*index, old): b""}, deletes=[(*index, Plain(f"k.{old}"))])
        await dbcreds.store.commit(change)
    assert list((await dbcreds("ListLeases", prefix=prefix)).keys) == keys
    assert await pages(dbcreds, prefix, 7) == keys
    for whole in (f"{prefix}/{keys[0]}", f"{prefix}/{keys[1]}"):
        await dbcreds("RevokePrefix", prefix=whole)
    assert list((await dbcreds("ListLeases", prefix=prefix)).keys) == keys[2:]
    await dbcreds("RevokePrefix", prefix="database")
    assert await dbcreds.nothing_left()
    await refused(dbcreds("ListLeases"), Kind.NOT_FOUND)


async def test_many_leases_go_page_by_page(dbcreds: Dbcreds) -> None:
    await asyncio.gather(*(dbcreds.creds() for _ in range(250)))
    assert await dbcreds.count() == 250
    await dbcreds.pass_time(3601)
    assert await dbcreds.nothing_left()
    assert sum(call == "drop" for call, _ in dbcreds.database.calls) == 250


async def test_many_leases_are_marked_in_few_transactions(dbcreds: Dbcreds) -> None:
    await asyncio.gather(*(dbcreds.creds() for _ in range(250)))
    before = dbcreds.store.current
    await dbcreds("DropTokenLeases", token_id="aa11")
    assert dbcreds.store.current - before == 8  # pages of 100, each in three transactions
    before = dbcreds.store.current
    await dbcreds("RevokePrefix", prefix="database", sync=False)
    assert dbcreds.store.current == before
    await dbcreds.work()
    assert await dbcreds.nothing_left()


@pytest.mark.parametrize(
    ("steps", "marked"), [(0, 0), (1, 40), (2, 40), (3, 80), (4, 80), (5, 100), (6, 100), (7, 120)]
)
async def test_a_process_that_dies_between_batches_loses_no_lease(
    dbcreds: Dbcreds, steps: int, marked: int
) -> None:
    """Of 120 leases, marked in four transactions, each is either revoked or stands as it was."""
    await asyncio.gather(*(dbcreds.creds() for _ in range(120)))
    mortal = dbcreds.twin(store=MortalStore(dbcreds.store, steps))
    mortal.service.clock._set(dbcreds.service.clock.now(), dbcreds.clock.now())
    with pytest.raises(Killed):
        await mortal("DropTokenLeases", token_id="aa11")
    await dbcreds.work()
    assert await dbcreds.count() == 120 - marked
    assert len(dbcreds.database.users) == 120 - marked
    await dbcreds("DropTokenLeases", token_id="aa11")
    await dbcreds.work()
    assert await dbcreds.nothing_left()


async def test_a_lease_that_changes_meanwhile_spoils_no_batch(dbcreds: Dbcreds) -> None:
    made = [await dbcreds.creds() for _ in range(40)]
    commit = dbcreds.store.commit

    async def renewed_first(transaction: Transaction) -> int:
        dbcreds.store.commit = commit  # type: ignore[method-assign]
        await dbcreds("RenewLease", lease_id=made[7].lease_id)
        return await commit(transaction)

    dbcreds.clock.advance(60)
    dbcreds.store.commit = renewed_first  # type: ignore[method-assign]
    await dbcreds("RevokePrefix", prefix="database", sync=False)
    await dbcreds.work()
    assert await dbcreds.nothing_left()


async def test_what_a_token_obtained_dies_with_it(dbcreds: Dbcreds) -> None:
    await dbcreds.creds()
    kept = await dbcreds.creds(context=STRANGER)
    dbcreds.database.down = True
    await dbcreds("DropTokenLeases", token_id="aa11")  # certain from here on
    await dbcreds.work()
    dbcreds.database.down = False
    await dbcreds.pass_time(600)
    assert list(dbcreds.database.users) == [kept.username]


@pytest.mark.parametrize("state", ["dead", "used_up"])
async def test_a_token_that_has_ended_gets_nothing(dbcreds: Dbcreds, state: str) -> None:
    getattr(dbcreds.auth, state).add("aa11")
    kind = Kind.DENIED if state == "dead" else Kind.INVALID
    await refused(dbcreds.creds(), kind)
    assert dbcreds.database.calls == [("verify", "")]
    assert await dbcreds.nothing_left()


async def test_nothing_is_made_where_the_token_cannot_be_checked(dbcreds: Dbcreds) -> None:
    dbcreds.auth.away = True
    await refused(dbcreds.creds(), Kind.UNAVAILABLE)
    assert await dbcreds.nothing_left()


async def test_a_token_that_ends_while_a_user_is_made_gets_nothing(dbcreds: Dbcreds) -> None:
    async def end_token(call: str) -> None:
        if call == "create":
            dbcreds.auth.dead.add("aa11")
            await dbcreds("DropTokenLeases", token_id="aa11")

    dbcreds.database.before = end_token
    await refused(dbcreds.creds(), Kind.DENIED, "revoked while")
    assert await dbcreds.nothing_left()


@pytest.mark.parametrize("method", ["RevokePrefix", "DropMount"])
async def test_a_mount_or_prefix_that_goes_while_a_user_is_made(
    dbcreds: Dbcreds, method: str
) -> None:
    fields: dict[str, Any] = (
        {"prefix": "database"} if method == "RevokePrefix" else {"mount_uuid": "mount-1"}
    )

    async def drop(call: str) -> None:
        if call == "create":
            await dbcreds(method, **fields)

    dbcreds.database.before = drop
    await refused(dbcreds.creds(), Kind.DENIED, "revoked while")
    dbcreds.database.before = None
    await dbcreds.pass_time(3600)
    assert await dbcreds.nothing_left()


async def test_a_lease_that_was_forced_away_while_its_user_was_made(dbcreds: Dbcreds) -> None:
    async def force(call: str) -> None:
        if call == "create":
            (key,) = [e.path[1] for e in await dbcreds.store.scan(("lease",))]
            await dbcreds.service.issuer._revoker.forget(str(key))
            dbcreds.database.before = None

    dbcreds.database.before = force
    await refused(dbcreds.creds(), Kind.DENIED)
    assert await dbcreds.nothing_left()


async def test_a_statement_that_fails_leaves_nothing(dbcreds: Dbcreds) -> None:
    dbcreds.database.refuses = 'syntax error at or near "CREAT"'

    async def refuse_creation_only(call: str) -> None:
        dbcreds.database.refuses = "syntax error" if call == "create" else ""

    dbcreds.database.before = refuse_creation_only
    await refused(dbcreds.creds(), Kind.INVALID, "syntax error")
    assert await dbcreds.nothing_left()


async def named_by_template(dbcreds: Dbcreds, template: str) -> None:
    details = connection_pb2.ConnectionDetails(username_template=template)
    await dbcreds("WriteConnection", name="db", details=details)


async def test_a_name_that_was_made_twice_harms_nobody(dbcreds: Dbcreds) -> None:
    """What a failed creation undoes, or what ends, is its own user and no other's of the same name."""
    await named_by_template(dbcreds, "app-{{.RoleName}}")
    user = NewUser("app-app", Password("theirs"), datetime.datetime.now(datetime.UTC))
    dbcreds.database.users["app-app"] = user  # of somebody else
    await refused(dbcreds.creds(), Kind.INVALID, "username_template")
    assert dbcreds.database.users.pop("app-app") is user
    made = await dbcreds.creds()
    await refused(dbcreds.creds(), Kind.INVALID, "username_template")
    assert list(dbcreds.database.users) == ["app-app"]
    await dbcreds("RevokeLease", lease_id=made.lease_id)
    assert await dbcreds.nothing_left()
    await dbcreds.creds()


async def test_a_name_that_is_made_twice_at_once_is_given_once(dbcreds: Dbcreds) -> None:
    await named_by_template(dbcreds, "app")
    tried = await asyncio.gather(*(dbcreds.creds() for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in tried) == 1
    assert list(dbcreds.database.users) == ["app"]
    assert (await dbcreds.stored("lease"), await dbcreds.stored("name")) == (1, 1)


async def test_a_name_is_free_when_its_user_is_gone_for_certain(dbcreds: Dbcreds) -> None:
    """A creation that nobody saw end is removed once more later; nobody else's user may have the name then."""
    await named_by_template(dbcreds, "app")

    async def die(call: str) -> None:
        if call == "create":
            raise asyncio.CancelledError

    dbcreds.database.after = die
    await refused(dbcreds.creds(), Kind.UNAVAILABLE)
    dbcreds.database.after = None
    await dbcreds.service.issuer.settle()
    assert not dbcreds.database.users
    await refused(dbcreds.creds(), Kind.INVALID, "username_template")
    await dbcreds.pass_time(700)
    assert await dbcreds.nothing_left()
    await dbcreds.creds()


async def test_nothing_is_left_of_users_that_the_database_was_never_told_of(
    dbcreds: Dbcreds,
) -> None:
    async def unreachable(call: str) -> None:
        raise NotReachedError("connection refused")

    dbcreds.database.before = unreachable
    for _ in range(3):
        await refused(dbcreds.creds(), Kind.UNAVAILABLE, "connection refused")
    assert await dbcreds.nothing_left()


async def test_a_database_that_hangs_is_given_up(dbcreds: Dbcreds) -> None:
    config = Config(clock_seconds=0.02, creation_seconds=0.1, revocation_seconds=1)
    quick = Dbcreds(dbcreds.store, dbcreds.clock, dbcreds.database, dbcreds.auth, config)
    await quick.prepare()
    await quick.role(revocation_timeout=1)
    quick.database.hangs = True
    await refused(quick.creds(), Kind.UNAVAILABLE, "in time")
    assert await quick.count() == 1  # it may exist
    quick.database.hangs = False
    # The statement that was given up reaches the database after all, behind the first attempt to remove it.
    (lease,) = await quick.store.scan(("lease",))
    await quick.pass_time(60)
    assert await quick.count() == 0
    assert await quick.stored("lease") == 1
    name = msgspec.msgpack.decode(lease.value)["username"]
    quick.database.users[name] = None  # type: ignore[assignment]
    await quick.pass_time(700)
    assert await quick.nothing_left()


async def test_a_ghost_goes_when_its_connection_has_been_gone_for_long(dbcreds: Dbcreds) -> None:
    config = Config(clock_seconds=0.02, creation_seconds=0.1, revocation_seconds=1)
    quick = Dbcreds(dbcreds.store, dbcreds.clock, dbcreds.database, dbcreds.auth, config)
    await quick.prepare()
    quick.database.hangs = True
    await refused(quick.creds(), Kind.UNAVAILABLE, "in time")
    quick.database.hangs = False
    await quick.pass_time(60)
    await quick("DeleteConnection", name="db")
    for _ in range(3):
        await quick.pass_time(1000)
        assert await quick.stored("lease") == 1  # the connection may come again
    await quick.pass_time(86_400)
    assert await quick.nothing_left()


async def test_a_client_that_leaves_leaves_nothing(dbcreds: Dbcreds) -> None:
    for steps in range(40):
        task = asyncio.create_task(dbcreds.creds())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await dbcreds.service.issuer.settle()
        if not task.cancelled() and task.exception() is None:
            await dbcreds("RevokeLease", lease_id=task.result().lease_id)
        await dbcreds.pass_time(700)
        assert await dbcreds.nothing_left(), steps


@pytest.mark.parametrize("commit", range(1, 4))
async def test_a_store_that_fails_leaves_nothing(dbcreds: Dbcreds, commit: int) -> None:
    real, seen = dbcreds.store.commit, 0

    async def failing(transaction: Any) -> int:
        nonlocal seen
        seen += 1
        if seen == commit:
            raise ServiceError(Kind.UNAVAILABLE, "etcd did not answer")
        return await real(transaction)

    dbcreds.store.commit = failing  # type: ignore[method-assign]
    if commit < 3:
        await refused(dbcreds.creds(), Kind.UNAVAILABLE)
    else:
        await dbcreds.creds()
        seen = 3
        await dbcreds("RevokePrefix", prefix="database")
    await dbcreds.pass_time(3601)
    await dbcreds.pass_time(700)
    assert await dbcreds.nothing_left()


async def test_an_activation_of_unknown_outcome_is_taken_back(dbcreds: Dbcreds) -> None:
    real, seen = dbcreds.store.commit, 0

    async def committed_unseen(transaction: Any) -> int:
        nonlocal seen
        revision = await real(transaction)
        seen += 1
        if seen == 2:
            raise ServiceError(Kind.UNAVAILABLE, "etcd did not answer")
        return revision

    dbcreds.store.commit = committed_unseen  # type: ignore[method-assign]
    await refused(dbcreds.creds(), Kind.UNAVAILABLE)
    assert await dbcreds.nothing_left()


class Killed(BaseException):
    """The process is no more."""


class MortalStore:
    """The store of a process that dies: from one step on, nothing that it does has an effect."""

    def __init__(self, store: MemoryStore, steps: int) -> None:
        self._store = store
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def step(self, _: str = "") -> None:
        self._steps -= 1
        if self._steps < 0:
            raise Killed

    async def commit(self, transaction: Transaction) -> int:
        await self.step()
        revision = await self._store.commit(transaction)
        await self.step()
        return revision


async def test_a_process_that_dies_at_any_step_leaves_a_lease_or_no_user() -> None:
    """Each commit and each call of the database is the last thing that some process does, or does not do."""
    outcomes = []
    for steps in range(10):
        dbcreds = await Dbcreds().furnish()
        store = MortalStore(dbcreds.store, steps)
        mortal = dbcreds.twin(store=store)
        mortal.service.clock._set(dbcreds.service.clock.now(), dbcreds.clock.now())
        dbcreds.database.before = dbcreds.database.after = store.step
        with contextlib.suppress(Killed, ServiceError):
            await mortal.creds()
        dbcreds.database.before = dbcreds.database.after = None
        left = len(dbcreds.database.users)
        await dbcreds.pass_time(61)
        assert len(dbcreds.database.users) == await dbcreds.count(), steps
        outcomes.append((left, len(dbcreds.database.users)))
        await dbcreds.pass_time(4000)
        assert await dbcreds.nothing_left(), steps
    assert (1, 0) in outcomes  # a user was there, and nobody who knew of it
    assert outcomes[-1] == (1, 1)


async def test_two_replicas_drop_a_user_once(dbcreds: Dbcreds) -> None:
    twin = await dbcreds.twin().prepare()
    made = [await dbcreds.creds() for _ in range(30)]
    dbcreds.clock.advance(3601)
    await asyncio.gather(dbcreds.work(), twin.work())
    assert await dbcreds.nothing_left()
    assert [dbcreds.database.drops(each.username) for each in made] == [1] * 30


async def test_a_clock_that_is_wrong_by_five_minutes_changes_nothing(dbcreds: Dbcreds) -> None:
    await dbcreds.service.start()
    await asyncio.sleep(0.05)
    dbcreds.config = replace(dbcreds.config, clock_seconds=60)  # the first is there to answer
    for offset in (300.0, -300.0):
        wrong = ManualClock(dbcreds.clock.now() + offset)
        twin = dbcreds.twin(wrong)
        await twin.prepare()
        assert abs(twin.service.clock.now() - dbcreds.service.clock.now()) < 1
        made = await twin.creds()
        found = await dbcreds("LookupLease", lease_id=made.lease_id)
        assert 3598 <= found.ttl <= 3600
        await twin.work()
        assert made.username in dbcreds.database.users
        wrong.advance(3601)
        dbcreds.clock.advance(3601)
        await twin.work()
        assert made.username not in dbcreds.database.users
    await dbcreds.service.stop()


async def test_failures_are_seen_and_tried_again_after_longer_and_longer_waits(
    dbcreds: Dbcreds,
) -> None:
    made = await dbcreds.creds()
    dbcreds.database.refuses = "role owns objects"
    await dbcreds.pass_time(3601)
    waits = []
    for attempts in range(1, 13):
        (lease,) = (await dbcreds("ListFailingLeases", OPERATOR)).leases
        assert (lease.lease_id, lease.attempts) == (made.lease_id, attempts)
        assert lease.error == "role owns objects"
        wait = lease.next_attempt.ToNanoseconds() / 1e9 - dbcreds.clock.now()
        waits.append(wait)
        await dbcreds.pass_time(wait - 0.01)
        await dbcreds.pass_time(0.02)
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(waits[:8])), waits
    assert all(150 <= wait <= 300 for wait in waits[9:])
    found = await dbcreds("LookupLease", lease_id=made.lease_id)
    assert (found.revoke_error, found.ttl, found.renewable) == ("role owns objects", 0, False)
    await refused(dbcreds("RenewLease", lease_id=made.lease_id), Kind.INVALID)


async def test_all_go_as_soon_as_the_database_is_back(dbcreds: Dbcreds) -> None:
    for _ in range(150):
        await dbcreds.creds()
    dbcreds.database.down = True
    await dbcreds.pass_time(3601)
    await dbcreds.service.expiry.probe_once()
    await dbcreds.service.expiry.settle()
    assert len(dbcreds.database.users) == 150
    dbcreds.database.down = False
    dbcreds.clock.advance(30)
    await dbcreds.service.expiry.probe_once()
    await dbcreds.service.expiry.settle()
    assert await dbcreds.nothing_left()


async def test_a_lease_that_fails_for_long_is_irrevocable_and_not_forgotten(
    dbcreds: Dbcreds,
) -> None:
    await dbcreds.role(irrevocable_after=3600, revocation_retry_interval=600)
    made = await dbcreds.creds()
    dbcreds.database.refuses = "role owns objects"
    await dbcreds.pass_time(3601)
    listed = await dbcreds("ListFailingLeases", OPERATOR, type="irrevocable")
    assert listed.lease_count == 0
    for _ in range(20):
        await dbcreds.pass_time(600)
    listed = await dbcreds("ListFailingLeases", OPERATOR, type="irrevocable")
    assert [(each.lease_id, each.irrevocable) for each in listed.leases] == [(made.lease_id, True)]
    assert (await dbcreds("CountLeases", OPERATOR, type="irrevocable")).lease_count == 1
    dbcreds.database.refuses = ""
    await dbcreds.pass_time(601)
    assert await dbcreds.nothing_left()


async def test_force_forgets_what_cannot_be_revoked(dbcreds: Dbcreds) -> None:
    for _ in range(10):
        await dbcreds.creds()
    dbcreds.database.down = True
    await refused(dbcreds("RevokePrefix", prefix="database"), Kind.UNAVAILABLE, "refused")
    assert await dbcreds.count() == 10
    await dbcreds("ForceRevokePrefix", prefix="database")
    assert await dbcreds.count() == 0
    assert await dbcreds.stored("queue") == 0
    assert len(dbcreds.database.users) == 10


async def test_tidying_tries_at_once(dbcreds: Dbcreds) -> None:
    await dbcreds.creds()
    dbcreds.database.refuses = "no"
    await dbcreds.pass_time(3601)
    for _ in range(6):
        await dbcreds.pass_time(40)
    dbcreds.database.refuses = ""
    await dbcreds.work()
    assert dbcreds.database.users
    await dbcreds("TidyLeases", OPERATOR)
    await dbcreds.work()
    assert await dbcreds.nothing_left()


class Members:
    """Those of a cluster, seen by one of them."""

    def __init__(self, record: str, gone: set[str]) -> None:
        self.record = record
        self._gone = gone

    async def is_gone(self, record: str) -> bool:
        return record in self._gone


@pytest.mark.parametrize("method", ["RevokePrefix", "RevokeLease", "DropMount"])
async def test_nobody_waits_for_the_claims_of_a_replica_that_is_gone(
    dbcreds: Dbcreds, method: str
) -> None:
    """It may have been killed while it removed users, and its claims go on for three quarters of a minute."""
    gone = set[str]()
    replicas = [
        await Dbcreds(
            dbcreds.store, dbcreds.clock, dbcreds.database, dbcreds.auth, dbcreds.config,
            Members(name, gone),
        ).prepare()
        for name in ("first", "other")
    ]  # fmt: skip
    made = [await dbcreds.creds() for _ in range(3)]
    first, other = replicas
    prefix = {"prefix": "database", "sync": True}
    dbcreds.database.hangs = True
    dying = asyncio.create_task(first("RevokePrefix", OPERATOR, **prefix))
    await until(lambda: dbcreds.database.waiting == 3)
    dbcreds.database.hangs = False
    fields: dict[str, Any] = {
        "RevokePrefix": prefix,
        "RevokeLease": {"lease_id": made[0].lease_id, "sync": True},
        "DropMount": {"mount_uuid": "mount-1"},
    }[method]
    waiting = asyncio.create_task(other(method, OPERATOR, **fields))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    gone.add("first")
    async with asyncio.timeout(20):
        await waiting
    assert len(dbcreds.database.users) == (2 if method == "RevokeLease" else 0)
    # Had it only been stopped, it goes on, and finds that there is nothing to do.
    dying.cancel()
    await asyncio.wait({dying})


async def test_a_mount_goes_after_its_last_lease(dbcreds: Dbcreds) -> None:
    for _ in range(3):
        await dbcreds.creds()
    dbcreds.database.down = True
    await refused(dbcreds("DropMount", mount_uuid="mount-1"), Kind.UNAVAILABLE, "3 leases")
    assert await dbcreds.stored("config") == 1
    await refused(dbcreds.creds(), Kind.NOT_FOUND, "disabled")
    await refused(dbcreds("WriteRole", name="late", db_name="db"), Kind.NOT_FOUND, "disabled")
    await refused(dbcreds("DropMount", mount_uuid="mount-1"), Kind.UNAVAILABLE, "3 leases")
    for _ in range(3):  # that it was disabled is remembered for as long as it has leases
        await dbcreds.service.marks.once()
        await dbcreds.pass_time(86_400)
    await refused(dbcreds.creds(), Kind.NOT_FOUND, "disabled")
    dbcreds.database.down = False
    await dbcreds.pass_time(300)
    await dbcreds("DropMount", mount_uuid="mount-1")
    assert await dbcreds.nothing_left()
    assert await dbcreds.stored("config") == await dbcreds.stored("role") == 0
    assert await dbcreds.stored("gone") == 1
    await dbcreds.service.marks.once()
    assert await dbcreds.stored("gone") == 0


async def test_a_mount_that_moves_ends_what_it_gave_under_its_old_path(dbcreds: Dbcreds) -> None:
    old = [await dbcreds.creds() for _ in range(3)]
    there = msgspec.structs.replace(CONTEXT, mount=replace(MOUNT, path="moved/"))
    dbcreds.database.down = True
    move: dict[str, Any] = {"mount_uuid": "mount-1", "path": "moved/", "moves": 1}
    await dbcreds("EndMovedLeases", **move)  # certain from here on
    dbcreds.database.down = False
    await refused(dbcreds.creds(), Kind.NOT_FOUND, "moved")
    made = await dbcreds.creds(context=there)
    assert made.lease_id.startswith("moved/creds/app/")
    await dbcreds("EndMovedLeases", **move)
    await dbcreds.pass_time(60)
    assert list(dbcreds.database.users) == [made.username]
    for each in old:
        await refused(dbcreds("LookupLease", OPERATOR, lease_id=each.lease_id), Kind.INVALID)
    # What is said late of an earlier move changes nothing.
    await dbcreds("EndMovedLeases", **{**move, "path": "database/", "moves": 2})
    await dbcreds("EndMovedLeases", **move)
    await dbcreds.creds()
    await refused(dbcreds.creds(context=there), Kind.NOT_FOUND, "moved")
    await dbcreds("DropMount", mount_uuid="mount-1")
    assert await dbcreds.nothing_left()
    await dbcreds("EndMovedLeases", **{**move, "moves": 3})
    assert await dbcreds.stored("moved") == 0


async def test_a_request_from_before_a_move_gets_no_lease_after_it(dbcreds: Dbcreds) -> None:
    commit = dbcreds.store.commit

    async def moved_first(transaction: Transaction) -> int:
        dbcreds.store.commit = commit  # type: ignore[method-assign]
        await dbcreds("EndMovedLeases", mount_uuid="mount-1", path="moved/", moves=1)
        return await commit(transaction)

    dbcreds.store.commit = moved_first  # type: ignore[method-assign]
    await refused(dbcreds.creds(), Kind.NOT_FOUND, "moved")
    assert await dbcreds.nothing_left()


async def test_a_lease_outlives_its_connection_and_its_role(dbcreds: Dbcreds) -> None:
    await dbcreds.creds()
    await dbcreds("DeleteRole", name="app")
    await dbcreds("DeleteConnection", name="db")
    await dbcreds.pass_time(3601)
    (lease,) = (await dbcreds("ListFailingLeases", OPERATOR)).leases
    assert "does not exist" in lease.error
    await dbcreds("WriteConnection", name="db", plugin_name="fake")
    dbcreds.clock.advance(60)
    await dbcreds.service.expiry.probe_once()
    await dbcreds.service.expiry.settle()
    assert await dbcreds.nothing_left()


async def test_a_lease_ends_as_its_own_database_wants_it_where_its_role_went_to_another(
    dbcreds: Dbcreds,
) -> None:
    await dbcreds("WriteConnection", name="other", plugin_name="fake", allowed_roles=texts("*"))
    await dbcreds.role(revocation_statements=texts("of the first"))
    lease = await dbcreds.creds()
    await dbcreds.role(revocation_statements=texts("of the first, now"))
    await dbcreds("RevokeLease", lease_id=lease.lease_id)
    lease = await dbcreds.creds()
    await dbcreds.role(db_name="other", revocation_statements=texts("of the other"))
    renewal = dbcreds("RenewLease", lease_id=lease.lease_id)
    await refused(renewal, Kind.INVALID, "another database")
    await dbcreds("RevokeLease", lease_id=lease.lease_id)
    assert dbcreds.database.removals == [("of the first, now",)] * 2
    assert await dbcreds.nothing_left()


async def test_a_service_that_stops_while_revocations_fail_leaves_all_of_them_queued(
    dbcreds: Dbcreds,
) -> None:
    for _ in range(100):
        await dbcreds.creds()
    dbcreds.database.down = True
    await dbcreds("RevokePrefix", prefix="database", sync=False)
    await dbcreds.service.start()
    await asyncio.sleep(0.02)
    await dbcreds.service.stop()
    await refused(dbcreds("CountLeases", OPERATOR), Kind.UNAVAILABLE, "starting")
    assert await dbcreds.stored("lease") == 100
    assert await dbcreds.stored("queue") == 100
    dbcreds.database.down = False
    again = await dbcreds.twin().prepare()
    await again.pass_time(400)
    assert await again.nothing_left()


async def test_a_record_that_does_not_open_stops_nothing_else(dbcreds: Dbcreds) -> None:
    await dbcreds.creds()
    (lease,) = await dbcreds.store.scan(("lease",))
    await dbcreds.creds()
    await dbcreds.store.commit(Transaction(puts={lease.path: b"broken"}))
    dbcreds.clock.advance(3601)
    await dbcreds.service.expiry.step()
    await dbcreds.service.expiry.settle()
    assert len(dbcreds.database.users) == 1


async def test_a_mount_with_many_leases_and_no_database_is_asked_for_again_cheaply(
    dbcreds: Dbcreds,
) -> None:
    for _ in range(50):
        await dbcreds.creds()
    dbcreds.database.down = True
    await refused(dbcreds("DropMount", mount_uuid="mount-1"), Kind.UNAVAILABLE, "50 leases")
    before = dbcreds.store.current
    await refused(dbcreds("DropMount", mount_uuid="mount-1"), Kind.UNAVAILABLE, "50 leases")
    assert dbcreds.store.current == before


async def test_a_database_that_hangs_keeps_no_lease_of_another_waiting(dbcreds: Dbcreds) -> None:
    await dbcreds.two_databases()
    for role, name in (("app", "db"), ("other", "other")):
        await dbcreds.role(role, db_name=name)
    for _ in range(200):
        await dbcreds.creds()
    for _ in range(3):
        await dbcreds.creds("other")
    dbcreds.database.hanging = "slow"
    dbcreds.clock.advance(3601)
    await dbcreds.service.start()
    async with asyncio.timeout(60):
        while await dbcreds.count() > 200:
            await asyncio.sleep(0.01)
        # Those that hang are given up and tried again, and still nobody else waits.
        dbcreds.clock.advance(60)
        await dbcreds.creds("other")
        await dbcreds("RevokePrefix", prefix="database/creds/other", sync=False)
        while await dbcreds.count() > 200:
            await asyncio.sleep(0.01)
    assert len(dbcreds.database.users) == 200
    await dbcreds.service.stop()


async def test_a_probe_that_hangs_keeps_no_other_database_waiting(dbcreds: Dbcreds) -> None:
    await dbcreds.two_databases()
    for role, name in (("app", "db"), ("other", "other")):
        await dbcreds.role(role, db_name=name)
    for role in ("app", "other"):
        await dbcreds.creds(role)
    dbcreds.database.down = True
    await dbcreds.pass_time(3601)
    dbcreds.database.down, dbcreds.database.hanging = False, "slow"
    dbcreds.clock.advance(30)
    await dbcreds.service.expiry.probe_once()
    async with asyncio.timeout(60):
        while await dbcreds.count() > 1:
            await asyncio.sleep(0.01)
    await dbcreds.service.start()
    await dbcreds.service.stop()
    assert len(dbcreds.database.users) == 1


async def test_leases_in_the_index_of_earlier_versions_end_too(dbcreds: Dbcreds) -> None:
    for _ in range(120):
        await dbcreds.creds()
    for entry in await dbcreds.store.scan(("queue",)):
        old = (Plain("due"), *entry.path[-2:])
        await dbcreds.store.commit(Transaction(puts={old: b""}, deletes=[entry.path]))
    await dbcreds.store.commit(Transaction(puts={(Plain("due"), Plain("1"), Plain("gone")): b""}))
    dbcreds.clock.advance(3601)
    await dbcreds.service.start()
    async with asyncio.timeout(60):
        while await dbcreds.count():
            await asyncio.sleep(0.01)
    await dbcreds.service.stop()
    assert await dbcreds.nothing_left()
    assert await dbcreds.stored("due") == 0


async def test_events_tell_what_happens(dbcreds: Dbcreds) -> None:
    seen: list[tuple[int, str]] = []
    caller = LocalCaller(dbcreds.service.handlers)
    request = lease_pb2.WatchLeasesRequest(prefix="database/creds/app")

    async def watch() -> None:
        method = "/strongroom.dbcreds.v1.LeaseService/WatchLeases"
        async for message in caller.stream(method, request, CONTEXT):
            seen.extend((event.kind, event.lease_id) for event in message.events)

    await dbcreds.role("other")
    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await dbcreds.creds("other")
    made = await dbcreds.creds()
    await dbcreds("RenewLease", lease_id=made.lease_id)
    dbcreds.database.down = True
    await refused(dbcreds("RevokeLease", lease_id=made.lease_id), Kind.UNAVAILABLE)
    dbcreds.database.down = False
    await dbcreds.pass_time(60)
    await asyncio.sleep(0.01)
    task.cancel()
    assert seen == [(kind, made.lease_id) for kind in (1, 2, 4, 3)]


async def test_who_watches_leases_is_told_up_to_when_nothing_happened(dbcreds: Dbcreds) -> None:
    caller = LocalCaller(dbcreds.service.handlers)
    method = "/strongroom.dbcreds.v1.LeaseService/WatchLeases"
    messages = caller.stream(method, lease_pb2.WatchLeasesRequest(), CONTEXT)
    begun = await anext(messages)
    store = dbcreds.store
    last = await store.commit(Transaction(puts={(Plain("elsewhere"),): b""}))
    store.notice()
    told = await anext(messages)
    assert (told.revision, len(told.events)) == (last, 0)
    assert last > begun.revision
    await messages.aclose()


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("WriteRole", {"name": "x"}, "db_name"),
        ("WriteRole", {"name": "x", "db_name": "d", "credential_type": "no"}, "credential_type"),
        ("WriteRole", {"name": "x", "db_name": "d", "default_ttl": 9, "max_ttl": 1}, "default_ttl"),
        ("WriteRole", {"name": "x", "db_name": "d", "max_ttl": -1}, "max_ttl"),
        ("WriteConnection", {"name": "x"}, "plugin_name"),
        ("WriteConnection", {"name": "x", "plugin_name": "none"}, "plugin_name"),
        ("WriteConnection", {"name": "x", "plugin_version": "v1"}, "plugin_version"),
        ("ResetConnection", {"name": "none"}, "name"),
        ("LookupLease", {"lease_id": ""}, "lease_id"),
        ("CountLeases", {"type": "no"}, "type"),
        ("ListFailingLeases", {"limit": "-1"}, "limit"),
        ("ListFailingLeases", {"limit": "0"}, "limit"),
        ("CreateCredentials", {"name": "none"}, "unknown role"),
        ("DropMount", {}, "mount_uuid"),
        ("DropTokenLeases", {}, "token_id"),
        ("EndMovedLeases", {"path": "x/"}, "mount_uuid"),
        ("EndMovedLeases", {"mount_uuid": "x"}, "path"),
        ("WriteLeaseQuota", {"name": "q", "max_leases": 0}, "max_leases"),
        ("WriteLeaseQuota", {"name": "q", "max_leases": 1, "role": "r"}, "role"),
    ],
)
async def test_bad_input_is_named(
    dbcreds: Dbcreds, method: str, fields: dict[str, Any], message: str
) -> None:
    await refused(dbcreds(method, OPERATOR, **fields), Kind.INVALID, message)


async def test_a_role_without_its_connection_or_not_allowed_by_it(dbcreds: Dbcreds) -> None:
    await dbcreds.role("lost", db_name="none")
    await refused(dbcreds.creds("lost"), Kind.INVALID, "db_name")
    await dbcreds("WriteConnection", name="narrow", plugin_name="fake")
    await dbcreds.role("narrow", db_name="narrow")
    await refused(dbcreds.creds("narrow"), Kind.INVALID, "not an allowed role")
    assert await dbcreds.nothing_left()


@pytest.mark.parametrize(
    ("allowed", "roles", "others"),
    [
        ("app-*", ["app-", "app-x"], ["app", "my-app-x", "x"]),
        ("*-rw", ["app-rw"], ["app-rw-", "rw"]),
        ("a*-*x", ["a-x", "ab-cx"], ["ax", "a-xy"]),
        ("a.[b]?", ["a.[b]?"], ["a.b", "axb", "a.[b]x"]),
    ],
)
async def test_patterns_allow_roles(
    dbcreds: Dbcreds, allowed: str, roles: list[str], others: list[str]
) -> None:
    await dbcreds("WriteConnection", name="db", allowed_roles=texts("other", allowed))
    for role in roles + others:
        await dbcreds.role(role)
    for role in roles:
        assert (await dbcreds.creds(role)).username
    for role in others:
        await refused(dbcreds.creds(role), Kind.INVALID, "not an allowed role")

"""Passwords that are changed: whatever dies, the one that the database has is known."""

import asyncio
import contextlib
from typing import Any

import pytest
import pytest_asyncio
from tests.unit.dbcreds.harness import CONTEXT, Dbcreds, refused, texts
from tests.unit.dbcreds.test_leases import Killed, MortalStore

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Plain, Transaction

ROOT = {"username": "root", "password": "first"}


@pytest_asyncio.fixture
async def dbcreds() -> Dbcreds:
    return await rotated()


async def rotated() -> Dbcreds:
    """A platform with a connection as `root`, whose password the database checks."""
    dbcreds = await Dbcreds().prepare()
    dbcreds.database.passwords["root"] = "first"
    await dbcreds(
        "WriteConnection", name="db", plugin_name="fake", allowed_roles=texts("*"), details=ROOT
    )
    return dbcreds


async def static(dbcreds: Dbcreds, name: str = "app", **fields: Any) -> None:
    usual = {"db_name": "db", "username": "app", "rotation_period": 3600}
    await dbcreds("WriteStaticRole", name=name, **{**usual, **fields})


async def known(dbcreds: Dbcreds, name: str = "app") -> str:
    return str((await dbcreds("ReadStaticCredentials", name=name)).password)


async def test_a_new_role_is_rotated_at_once_and_then_by_its_period(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    first = await dbcreds("ReadStaticCredentials", name="app")
    assert first.password == dbcreds.database.passwords["app"]
    assert (first.username, first.ttl, first.rotation_period) == ("app", 3600, 3600)
    assert first.last_vault_rotation.endswith("Z")
    dbcreds.clock.advance(3599)
    await dbcreds.service.rotator.step()
    assert (await dbcreds("ReadStaticCredentials", name="app")).ttl == 1
    assert await known(dbcreds) == first.password
    dbcreds.clock.advance(2)
    await dbcreds.service.rotator.step()
    assert await known(dbcreds) == dbcreds.database.passwords["app"] != first.password


async def test_a_role_is_removed_after_the_end_of_a_rotation(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    dbcreds.clock.advance(1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(call: str) -> None:
        if call == "change":
            begun.set()
            await go_on.wait()

    dbcreds.database.before = wait
    twin = await dbcreds.twin().prepare()
    rotation = asyncio.create_task(dbcreds("RotateRole", name="app"))
    async with asyncio.timeout(60):
        await begun.wait()
    removal = asyncio.create_task(twin("DeleteStaticRole", name="app"))
    await asyncio.sleep(0.3)
    assert not removal.done()
    go_on.set()
    await asyncio.gather(rotation, removal)
    await refused(dbcreds("ReadStaticRole", name="app"), Kind.NOT_FOUND)


async def test_who_logs_in_is_not_changed_while_its_password_is(dbcreds: Dbcreds) -> None:
    async def write(call: str) -> None:
        if call == "change":
            details = {"username": "other"}
            await refused(
                dbcreds("WriteConnection", name="db", details=details, verify_connection=False),
                Kind.FAILED_PRECONDITION,
                "rotated",
            )

    dbcreds.database.before = write
    await dbcreds("RotateRoot", name="db")
    dbcreds.database.before = None
    await dbcreds("WriteConnection", name="db")


async def test_a_rotation_that_begins_closes_nothing(dbcreds: Dbcreds) -> None:
    """What is opened anew then may log in with the password of before, just when there is a new one."""
    connections = dbcreds.service._connections
    async with connections.use("mount-1", "db") as first:

        async def look(call: str) -> None:
            if call == "change":
                async with connections.use("mount-1", "db") as still:
                    assert still is first

        dbcreds.database.before = look
        await dbcreds("RotateRoot", name="db")
        async with connections.use("mount-1", "db") as second:
            assert second is not first


async def test_a_role_and_a_static_role_cannot_share_a_name(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    await refused(dbcreds.role("app"), Kind.INVALID, "unique")
    await dbcreds.role("other")
    await refused(static(dbcreds, "other"), Kind.INVALID, "unique")
    await static(dbcreds, rotation_period=60)  # of its own name it may change anything
    await dbcreds("DeleteStaticRole", name="app")
    await dbcreds.role("app")


async def test_who_writes_a_role_and_a_static_role_at_once_gets_one_of_them(
    dbcreds: Dbcreds,
) -> None:
    twin = await dbcreds.twin().prepare()
    for name in map(str, range(20)):
        tried = await asyncio.gather(
            static(dbcreds, name, username=name), twin.role(name), return_exceptions=True
        )
        assert sum(error is None for error in tried) == 1
        assert await dbcreds.stored("role") + await dbcreds.stored("static") == int(name) + 1


async def test_a_schedule_with_a_window(dbcreds: Dbcreds) -> None:
    # 1_700_000_000 is 2023-11-14 22:13:20 in UTC, a Tuesday.
    await static(dbcreds, rotation_period=None, rotation_schedule="0 3 * * 6", rotation_window=3600)
    made = await dbcreds("ReadStaticCredentials", name="app")
    until = 1_700_276_400 + 3 * 3600 - 3 * 3600 - dbcreds.clock.now()
    assert made.ttl == int(until)
    assert (made.rotation_schedule, made.rotation_window) == ("0 3 * * 6", 3600)
    assert not made.HasField("rotation_period")
    dbcreds.clock.advance(until + 3601)  # nobody was there in time
    await dbcreds.service.rotator.step()
    again = await dbcreds("ReadStaticCredentials", name="app")
    assert again.password == made.password
    assert again.ttl > 6 * 86_400
    dbcreds.clock.advance(again.ttl + 10)
    await dbcreds.service.rotator.step()
    assert await known(dbcreds) != made.password


async def test_skipped_imports_wait_for_their_time(dbcreds: Dbcreds) -> None:
    await static(dbcreds, skip_import_rotation=True)
    assert "app" not in dbcreds.database.passwords
    assert not (await dbcreds("ReadStaticCredentials", name="app")).HasField("password")
    dbcreds.clock.advance(3601)
    await dbcreds.service.rotator.step()
    assert await known(dbcreds) == dbcreds.database.passwords["app"]


async def test_users_that_manage_themselves(dbcreds: Dbcreds) -> None:
    dbcreds.database.passwords["app"] = "own"
    await refused(
        static(dbcreds, self_managed_password="wrong"), Kind.UNAVAILABLE, "authentication failed"
    )
    await dbcreds("DeleteStaticRole", name="app")
    await static(dbcreds, self_managed_password="own")
    assert await known(dbcreds) == dbcreds.database.passwords["app"] != "own"
    await dbcreds("RotateRole", name="app")
    assert await known(dbcreds) == dbcreds.database.passwords["app"]


async def test_keys_are_rotated(dbcreds: Dbcreds) -> None:
    await static(dbcreds, credential_type="rsa_private_key")
    made = await dbcreds("ReadStaticCredentials", name="app")
    assert "PRIVATE KEY" in made.rsa_private_key
    assert not made.HasField("password")


async def test_root_is_rotated_on_demand_and_by_a_plan(dbcreds: Dbcreds) -> None:
    await dbcreds("RotateRoot", name="db")
    second = dbcreds.database.passwords["root"]
    assert second != "first"
    await dbcreds("WriteConnection", name="db", rotation_schedule="0 0 * * *")
    shown = await dbcreds("ReadConnection", name="db")
    assert (shown.rotation_schedule, shown.connection_details.password) == ("0 0 * * *", "")
    assert shown.last_vault_rotation
    await dbcreds.role()
    await dbcreds.creds()
    dbcreds.clock.advance(86_400)
    await dbcreds.service.rotator.step()
    assert dbcreds.database.passwords["root"] != second
    await dbcreds("WriteConnection", name="db", disable_automated_rotation=True)
    third = dbcreds.database.passwords["root"]
    dbcreds.clock.advance(3 * 86_400)
    await dbcreds.service.rotator.step()
    assert dbcreds.database.passwords["root"] == third
    await dbcreds.creds()


@pytest.mark.parametrize("which", ["root", "app", "own"])
async def test_a_process_that_dies_at_any_step_leaves_a_password_that_is_known(which: str) -> None:
    """Each commit and each call of the database is the last thing that some process does, or does not do."""
    changed = set()
    for steps in range(9):
        dbcreds = await rotated()
        if which == "own":
            dbcreds.database.passwords["app"] = "own"
            await static(dbcreds, self_managed_password="own")
        elif which == "app":
            await static(dbcreds)
        user = "root" if which == "root" else "app"
        before = dbcreds.database.passwords[user]
        store = MortalStore(dbcreds.store, steps)
        mortal = dbcreds.twin(store=store)
        mortal.service.clock._set(dbcreds.service.clock.now(), dbcreds.clock.now())
        dbcreds.clock.advance(1)
        dbcreds.database.before = dbcreds.database.after = store.step
        with contextlib.suppress(Killed, ServiceError):
            if which == "root":
                await mortal("RotateRoot", name="db")
            else:
                await mortal("RotateRole", name="app")
        dbcreds.database.before = dbcreds.database.after = None
        changed.add(dbcreds.database.passwords[user] != before)
        dbcreds.clock.advance(16)
        await dbcreds.service.rotator.step()
        if which == "root":
            await dbcreds("WriteConnection", name="db", allowed_roles=texts("app"))
            await dbcreds.role()
            await dbcreds.creds()
        else:
            assert await known(dbcreds) == dbcreds.database.passwords["app"], steps
            entry = await dbcreds("ReadStaticRole", name="app")
            assert not entry.rotation_error, (steps, entry.rotation_error)
    assert changed == {True, False}


async def test_a_role_is_imported_though_the_process_dies_that_wrote_it() -> None:
    """Each commit and each call of the database is the last thing that it does, or does not do."""
    imported = set()
    for steps in range(8):
        dbcreds = await rotated()
        store = MortalStore(dbcreds.store, steps)
        mortal = dbcreds.twin(store=store)
        mortal.service.clock._set(dbcreds.service.clock.now(), dbcreds.clock.now())
        dbcreds.database.before = dbcreds.database.after = store.step
        with contextlib.suppress(Killed, ServiceError):
            await static(mortal)
        dbcreds.database.before = dbcreds.database.after = None
        dbcreds.clock.advance(16)
        await dbcreds.service.rotator.step()
        written = "app" in list(await names(dbcreds))
        imported.add(written)
        if written:
            assert await known(dbcreds) == dbcreds.database.passwords["app"], steps
    assert imported == {False, True}


async def test_a_role_whose_import_was_never_begun_is_imported_with_the_next_write(
    dbcreds: Dbcreds,
) -> None:
    await static(dbcreds, skip_import_rotation=True)
    await static(dbcreds, rotation_period=7200)
    assert "app" not in dbcreds.database.passwords
    await static(dbcreds, skip_import_rotation=False)
    await dbcreds.service.rotator.step()
    assert await known(dbcreds) == dbcreds.database.passwords["app"]


async def names(dbcreds: Dbcreds) -> list[str]:
    return [str(e.path[-1]) for e in await dbcreds.store.scan((Plain("static"),))]


async def test_what_was_left_half_way_is_settled_before_it_is_read(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    real, done = dbcreds.store.commit, 0

    async def dies(transaction: Any) -> int:
        nonlocal done
        done += 1
        if done == 2:
            raise Killed
        return await real(transaction)

    dbcreds.clock.advance(1)
    dbcreds.store.commit = dies  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        await dbcreds("RotateRole", name="app")
    dbcreds.store.commit = real  # type: ignore[method-assign]
    dbcreds.clock.advance(61)
    assert await known(dbcreds) == dbcreds.database.passwords["app"]


async def test_failures_are_seen_and_tried_again(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    before = await known(dbcreds)
    dbcreds.database.down = True
    dbcreds.clock.advance(3601)
    for _ in range(4):
        await dbcreds.service.rotator.step()
        dbcreds.clock.advance(20)
    shown = await dbcreds("ReadStaticRole", name="app")
    assert (shown.rotation_error, shown.rotation_attempts) == ("connection refused", 4)
    assert await known(dbcreds) == before
    dbcreds.database.down = False
    await dbcreds.service.rotator.step()
    assert await known(dbcreds) == dbcreds.database.passwords["app"] != before
    assert not (await dbcreds("ReadStaticRole", name="app")).rotation_error


async def test_calls_at_once_on_two_replicas_end_with_one_password(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    twin = await dbcreds.twin().prepare()
    dbcreds.clock.advance(5)
    calls = len(dbcreds.database.calls)
    await asyncio.gather(*(each("RotateRole", name="app") for each in (dbcreds, twin) * 5))
    assert len(dbcreds.database.calls) == calls + 1
    assert await known(dbcreds) == await known(twin) == dbcreds.database.passwords["app"]
    dbcreds.clock.advance(3601)
    await asyncio.gather(dbcreds.service.rotator.step(), twin.service.rotator.step())
    assert len(dbcreds.database.calls) == calls + 2


@pytest.mark.parametrize("others", ["write another", "write it anew", "rotate it"])
async def test_a_role_that_others_wrote_stays_though_its_first_import_is_refused(
    dbcreds: Dbcreds, others: str
) -> None:
    """Its password is known nowhere else."""
    commit = dbcreds.store.commit

    async def late(transaction: Transaction) -> int:
        """The moment before the role is taken back."""
        if any(path[0] == "static" for path in transaction.deletes):
            dbcreds.store.commit = commit  # type: ignore[method-assign]
            dbcreds.database.refuses = ""
            if others == "write another":
                await dbcreds("DeleteStaticRole", name="app")
                await static(dbcreds, username="second")
            elif others == "write it anew":
                await static(dbcreds, rotation_period=7_200)
            else:
                await dbcreds("RotateRole", name="app")
        return await commit(transaction)

    dbcreds.store.commit = late  # type: ignore[method-assign]
    dbcreds.database.refuses = "no such user"
    await refused(static(dbcreds), Kind.INVALID, "no such user")
    shown = await dbcreds("ReadStaticRole", name="app")
    assert (shown.username, shown.rotation_period) == (
        "second" if others == "write another" else "app",
        7_200 if others == "write it anew" else 3_600,
    )
    if others != "write it anew":
        assert await known(dbcreds) == dbcreds.database.passwords[shown.username]


async def test_a_role_stays_whose_import_another_replica_has_taken_over(dbcreds: Dbcreds) -> None:
    twin, commit, tasks = dbcreds.twin(), dbcreds.store.commit, list[asyncio.Task[Any]]()
    await twin.prepare()
    free = asyncio.Event()

    async def wait(call: str) -> None:
        await free.wait()

    async def late(transaction: Transaction) -> int:
        if any(path[0] == "static" for path in transaction.deletes):
            dbcreds.store.commit = commit  # type: ignore[method-assign]
            dbcreds.database.refuses, dbcreds.database.before = "", wait
            tasks.append(asyncio.create_task(twin("RotateRole", name="app")))
            await asyncio.sleep(0.05)
        return await commit(transaction)

    dbcreds.store.commit = late  # type: ignore[method-assign]
    dbcreds.database.refuses = "no such user"
    await refused(static(dbcreds), Kind.INVALID, "no such user")
    free.set()
    await tasks[0]
    assert await known(dbcreds) == dbcreds.database.passwords["app"]


async def test_a_role_that_the_database_refuses_is_not_written(dbcreds: Dbcreds) -> None:
    dbcreds.database.refuses = "no such user"
    await refused(static(dbcreds), Kind.INVALID, "no such user")
    await refused(dbcreds("ReadStaticRole", name="app"), Kind.NOT_FOUND)
    dbcreds.database.refuses, dbcreds.database.down = "", True
    await refused(static(dbcreds), Kind.UNAVAILABLE, "is rotated later")
    dbcreds.database.down = False
    dbcreds.clock.advance(5)
    await dbcreds.service.rotator.step()
    assert await known(dbcreds) == dbcreds.database.passwords["app"]


async def test_a_password_given_by_hand_ends_what_was_left_half_way(dbcreds: Dbcreds) -> None:
    dbcreds.database.down = True
    await refused(dbcreds("RotateRoot", name="db"), Kind.UNAVAILABLE)
    dbcreds.database.down = False
    dbcreds.database.passwords["root"] = "by hand"
    await dbcreds("WriteConnection", name="db", details={"password": "by hand"})
    assert await dbcreds.stored("rotation") == 0
    await dbcreds("RotateRoot", name="db")
    assert dbcreds.database.passwords["root"] != "by hand"


async def test_nothing_is_left_of_roles_that_are_gone(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    await static(dbcreds, "other", username="other")
    await dbcreds("DeleteStaticRole", name="app")
    assert await dbcreds.stored("rotation") == 1
    await dbcreds("DropMount", mount_uuid="mount-1")
    assert await dbcreds.stored("rotation") == await dbcreds.stored("static") == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"username": ""}, "username"),
        ({"db_name": ""}, "db_name"),
        ({"db_name": "none"}, "db_name"),
        ({"rotation_period": 4}, "rotation_period"),
        ({"rotation_period": None}, "rotation_period or rotation_schedule"),
        ({"rotation_schedule": "0 0 * * *"}, "only one"),
        ({"rotation_period": None, "rotation_schedule": "daily"}, "rotation_schedule"),
        ({"rotation_period": None, "rotation_schedule": "0 0 30 2 *"}, "rotation_schedule"),
        ({"rotation_window": 3600}, "rotation_window"),
        (
            {"rotation_period": None, "rotation_schedule": "0 0 * * *", "rotation_window": 60},
            "rotation_window",
        ),
        ({"credential_type": "client_certificate"}, "credential_type"),
        ({"credential_config": {"no": "x"}}, "credential_config"),
        ({"credential_config": {"password_policy": "none"}}, "password_policy"),
    ],
)
async def test_bad_input_is_named_and_changes_nothing(
    dbcreds: Dbcreds, fields: dict[str, Any], message: str
) -> None:
    await refused(static(dbcreds, **fields), Kind.INVALID, message)
    assert await dbcreds.stored("static") == await dbcreds.stored("rotation") == 0


async def test_what_cannot_be_changed_and_what_is_not_there(dbcreds: Dbcreds) -> None:
    await static(dbcreds)
    await refused(static(dbcreds, username="other"), Kind.INVALID, "username")
    await refused(dbcreds("RotateRole", name="none"), Kind.INVALID, "unknown role: none")
    await refused(dbcreds("RotateRoot", name="none"), Kind.INVALID, "no such connection")
    await refused(dbcreds("ReadStaticCredentials", name="none"), Kind.INVALID, "unknown role")
    await dbcreds("WriteConnection", name="rootless", plugin_name="fake")
    await refused(dbcreds("RotateRoot", name="rootless"), Kind.INVALID, "username")


async def test_a_password_in_the_url_is_said_and_never_rotated(dbcreds: Dbcreds) -> None:
    details = {**ROOT, "connection_url": "db://root:first@host"}
    written = await dbcreds("WriteConnection", name="db", details=details)
    assert "connection_url" in written.warnings[0]
    shown = await dbcreds("ReadConnection", name="db")
    assert shown.connection_details.connection_url == "db://root:xxxxx@host"
    await refused(dbcreds("RotateRoot", name="db"), Kind.INVALID, "connection_url")
    assert dbcreds.database.passwords["root"] == "first"
    own = static(dbcreds, self_managed_password="first")
    await refused(own, Kind.INVALID, "connection_url")
    template = {"connection_url": "db://{{username}}:{{password}}@host"}
    assert not (await dbcreds("WriteConnection", name="db", details=template)).warnings
    await dbcreds("RotateRoot", name="db")
    assert dbcreds.database.passwords["root"] != "first"


async def test_policies_make_passwords(dbcreds: Dbcreds) -> None:
    await dbcreds(
        "WritePasswordPolicy",
        name="digits",
        policy='length=12 rule "charset" {charset="0123456789"}',
    )
    assert list((await dbcreds("ListPasswordPolicies")).keys) == ["digits"]
    await static(dbcreds, credential_config={"password_policy": "digits"})
    made = await known(dbcreds)
    assert made.isdecimal() and len(made) == 12
    generated = (await dbcreds("GeneratePassword", CONTEXT, name="digits")).password
    assert generated.isdecimal() and len(generated) == 12
    await dbcreds("DeletePasswordPolicy", name="digits")
    for method in ("ReadPasswordPolicy", "GeneratePassword"):
        await refused(dbcreds(method, name="digits"), Kind.NOT_FOUND, "policy does not exist")
    dbcreds.clock.advance(1)
    await refused(dbcreds("RotateRole", name="app"), Kind.INVALID, "password_policy")
    assert await known(dbcreds) == made


async def test_a_database_that_hangs_keeps_no_other_waiting(dbcreds: Dbcreds) -> None:
    await dbcreds.two_databases()
    for number in range(120):
        await static(dbcreds, f"stuck-{number}", username=f"stuck{number}", rotation_period=1800)
    await static(dbcreds, db_name="other")
    before = await known(dbcreds)
    dbcreds.database.hanging = "slow"
    dbcreds.clock.advance(3601)
    await dbcreds.service.start()
    async with asyncio.timeout(60):
        while await known(dbcreds) == before:
            await asyncio.sleep(0.01)
    assert (await dbcreds("ReadStaticRole", name="stuck-0")).HasField("last_vault_rotation")
    await dbcreds.service.stop()


async def test_a_role_that_does_not_open_keeps_no_other_from_being_rotated(
    dbcreds: Dbcreds,
) -> None:
    await static(dbcreds, "a")
    dbcreds.clock.advance(1)
    await static(dbcreds, "b", username="b")
    first = await known(dbcreds, "b")
    dbcreds.clock.advance(3601)
    dbcreds.store.broken.add((Plain("static"), Plain("mount-1"), "a"))
    await dbcreds.service.rotator.step()
    assert await known(dbcreds, "b") == dbcreds.database.passwords["b"] != first
    assert [path[-1] for path, _ in dbcreds.store.noted] == ["a"]
    dbcreds.store.broken.clear()
    await dbcreds.service.rotator.step()
    assert await known(dbcreds, "a") == dbcreds.database.passwords["app"]

"""Users with passwords."""

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import bcrypt
import msgspec
import pytest
from tests.unit.auth.harness import (
    LOGIN_MOUNT,
    ROOT,
    Auth,
    before_the_next,
    count,
    login_context,
    only_one_more_commit,
    refused,
    texts,
)

from strongroom.auth.v1 import login_pb2
from strongroom_auth.lockout import Failures
from strongroom_auth.settings import Settings
from strongroom_auth.userpass.passwords import Passwords
from strongroom_auth.userpass.users import User
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Path, Plain, Transaction

WRONG = "invalid username or password"


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


async def write(auth: Auth, name: str = "ann", password: str = "hunter2", **settings: Any) -> None:
    given = login_pb2.TokenSettings(**settings)
    await auth("WriteUser", login_context(), username=name, password=password, settings=given)


def login(auth: Auth, name: str = "ann", password: str = "hunter2", **context: Any) -> Any:
    return auth("LoginUser", login_context(**context), username=name, password=password)


async def test_a_password_makes_a_token(auth: Auth) -> None:
    await write(auth, token_policies=texts("app"), token_ttl=60, token_max_ttl=100)
    made = (await login(auth, "Ann")).auth
    assert (list(made.policies), made.lease_duration) == (["app", "default"], 60)
    assert dict(made.metadata) == {"username": "ann"}
    entry = await auth.entry(made.client_token)
    assert (entry.display_name, entry.orphan) == ("people-ann", True)


async def test_unknown_users_and_wrong_passwords_look_alike(auth: Auth) -> None:
    await write(auth)
    await refused(login(auth, "ann", "wrong"), Kind.INVALID, WRONG)
    await refused(login(auth, "bob", "wrong"), Kind.INVALID, WRONG)
    await refused(login(auth, "ann", "x" * 80), Kind.INVALID, WRONG)
    await refused(login(auth, "ann", ""), Kind.INVALID, "missing password")


async def test_five_wrong_tries_in_any_spelling_lock(auth: Auth) -> None:
    await write(auth)
    for name in ("ann", "ANN", "Ann", " ann", "aNN"):
        await refused(login(auth, name, "wrong"), Kind.INVALID, WRONG)
    await refused(login(auth), Kind.DENIED)
    auth.clock.advance(901)
    assert (await login(auth)).auth.client_token
    for _ in range(4):
        await refused(login(auth, "ann", "wrong"), Kind.INVALID)
    assert (await login(auth)).auth.client_token
    await refused(login(auth, "ann", "wrong"), Kind.INVALID)
    assert (await login(auth)).auth.client_token


async def test_a_login_and_the_end_of_its_failed_tries_are_one_change(auth: Auth) -> None:
    """Else a token could be made, and its login be told an error: a token that nobody knows."""
    await write(auth)
    await refused(login(auth, "ann", "wrong"), Kind.INVALID, WRONG)
    only_one_more_commit(auth)
    assert (await login(auth)).auth.client_token
    assert await auth.store.count((Plain("userpass"), Plain(LOGIN_MOUNT.uuid), Plain("f"))) == 0


async def test_tries_at_once_over_replicas_are_all_counted(auth: Auth) -> None:
    await write(auth)
    twin = await auth.twin()
    await count([login((auth, twin)[n % 2], "ann", "wrong") for n in range(5)])
    await refused(login(twin), Kind.DENIED)


async def test_failed_logins_that_are_of_no_more_use_are_removed(auth: Auth) -> None:
    kept = (Plain("userpass"), Plain(LOGIN_MOUNT.uuid), Plain("f"))
    lockouts = auth.service._swept
    for name in ("ann", "bob", "x" * 513):
        await refused(login(auth, name, "wrong"), Kind.INVALID, WRONG)
    assert await auth.store.count(kept) == 2  # nobody has so long a name
    old = Failures(3, auth.clock.now())  # as an earlier version wrote it
    puts: dict[Path, bytes] = {(*kept, f"old-{n}"): msgspec.msgpack.encode(old) for n in range(101)}
    await auth.store.commit(Transaction(puts=puts))
    auth.clock.advance(800)
    await refused(login(auth, "bob", "wrong"), Kind.INVALID, WRONG)
    auth.clock.advance(101)
    for each in lockouts:
        await each.sweep(auth.clock.now())
    assert await auth.store.count(kept) == 102
    assert await auth.store.get((*kept, "bob")) is not None
    auth.clock.advance(30 * 86_400)
    for each in lockouts:
        await each.sweep(auth.clock.now())
    assert await auth.store.count(kept) == 0


async def test_many_logins_wait_for_each_other_and_for_nobody_else() -> None:
    passwords = Passwords(rounds=4)
    loop, free = asyncio.get_running_loop(), threading.Event()
    busy = [loop.run_in_executor(None, free.wait) for _ in range(40)]  # all threads of the loop
    try:
        known = await passwords.hash("hunter2")
        assert await passwords.matches("hunter2", known)
    finally:
        free.set()
        await asyncio.gather(*busy)
    tries = [passwords.matches("wrong", known) for _ in range(passwords._most + 7)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    refusals = [each.kind for each in outcomes if isinstance(each, ServiceError)]
    assert refusals == [Kind.EXHAUSTED] * 7
    assert await passwords.matches("hunter2", known)


async def test_the_mount_says_when_users_are_locked(auth: Auth) -> None:
    await write(auth)
    for config, tries in (({"lockout_threshold": "2"}, 2), ({"lockout_disable": True}, 20)):
        tuned = json.dumps({"user_lockout_config": config}).encode()
        mount = replace(LOGIN_MOUNT, config=tuned)
        for _ in range(tries):
            await refused(login(auth, "bob", "wrong", mount=mount), Kind.INVALID)
        if tries == 2:
            await refused(login(auth, "bob", "wrong", mount=mount), Kind.DENIED)


async def test_locked_users_are_listed_and_unlocked(auth: Auth) -> None:
    await write(auth)
    for name in ("ann", "bob"):
        for _ in range(5):
            await refused(login(auth, name, "wrong"), Kind.INVALID)
    await refused(login(auth, "carl", "wrong"), Kind.INVALID)
    assert list((await auth("ListLockedNames", login_context())).names) == ["ann", "bob"]
    await auth("UnlockName", login_context(), name="ann")
    assert (await login(auth)).auth.client_token
    auth.clock.advance(901)
    assert list((await auth("ListLockedNames", login_context())).names) == []


async def test_what_was_written_by_its_old_name_is_shown_by_both(auth: Auth) -> None:
    async def shown() -> tuple[list[str], list[str], int, int]:
        user = await auth("ReadUser", login_context(), username="ann")
        policies = [list(user.settings.token_policies.values), list(user.policies.values)]
        return (*policies, user.settings.token_ttl, user.ttl)

    await auth(
        "WriteUser", login_context(), username="ann", password="p", policies=texts("a"), ttl=60
    )
    assert await shown() == (["a"], ["a"], 60, 60)
    await auth("WriteUserPolicies", login_context(), username="ann", token_policies=texts("b"))
    assert await shown() == (["b"], [], 60, 60)
    await auth("WriteUserPolicies", login_context(), username="ann", policies=texts("c"))
    assert await shown() == (["c"], ["c"], 60, 60)
    await auth(
        "WriteUser", login_context(), username="ann", policies=texts(), settings={"token_ttl": 5}
    )
    assert await shown() == ([], [], 5, 0)


async def test_passwords_and_policies_are_changed(auth: Auth) -> None:
    await write(auth)
    await auth("WritePassword", login_context(), username="ann", password="new")
    await refused(login(auth), Kind.INVALID, WRONG)
    hashed = bcrypt.hashpw(b"third", bcrypt.gensalt(5)).decode()
    await auth("WritePassword", login_context(), username="ann", password_hash=hashed)
    await auth("WriteUserPolicies", login_context(), username="ann", token_policies=texts("ops"))
    assert list((await login(auth, password="third")).auth.policies) == ["default", "ops"]
    shown = (await auth("ReadUser", login_context(), username="ann")).settings
    assert list(shown.token_policies.values) == ["ops"]
    # Without any, nothing is changed: an empty request takes nobody's rights away.
    await auth("WriteUserPolicies", login_context(), username="ann")
    assert list((await login(auth, password="third")).auth.policies) == ["default", "ops"]
    await auth("WriteUserPolicies", login_context(), username="ann", token_policies=texts())
    assert list((await login(auth, password="third")).auth.policies) == ["default"]
    assert list((await auth("ListUsers", login_context())).keys) == ["ann"]
    await auth("DeleteUser", login_context(), username="ann")
    await refused(login(auth, password="third"), Kind.INVALID, WRONG)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "missing password"),
        ({"password": "x" * 73}, "72 bytes"),
        ({"password": "a", "password_hash": "b"}, "only one"),
        ({"password_hash": "nonsense"}, "bcrypt"),
        ({"password_hash": f"$2b$31${'a' * 53}"}, "cost from 5 to 12"),
        ({"password_hash": f"$2b$04${'a' * 53}"}, "cost from 5 to 12"),
        ({"password_hash": f"$2b$32${'a' * 53}"}, "cost from 5 to 12"),
        ({"password_hash": f"$2b$10${'a' * 52}"}, "bcrypt"),
        ({"password": "a", "settings": {"token_type": "batch"}}, "token_type"),
        ({"password": "a", "settings": {"token_ttl": -1}}, "negative"),
        ({"password": "a", "settings": {"token_policies": texts("Root ")}}, "root tokens"),
        ({"password": "a", "settings": {"token_policies": texts("a", "ROOT")}}, "root tokens"),
        ({"password": "a", "settings": {"token_ttl": 9, "token_max_ttl": 1}}, "token_max_ttl"),
    ],
)
async def test_bad_users_are_refused(auth: Auth, fields: dict[str, Any], message: str) -> None:
    await refused(
        auth("WriteUser", login_context(), username="bob", **fields), Kind.INVALID, message
    )
    await refused(auth("ReadUser", login_context(), username="bob"), Kind.NOT_FOUND)


async def test_a_user_that_was_given_root_before_it_was_refused_does_not_get_it(auth: Auth) -> None:
    await write(auth)
    stored = User(bcrypt.hashpw(b"hunter2", bcrypt.gensalt(4)), Settings(policies=("root",)))
    path = (Plain("userpass"), Plain(LOGIN_MOUNT.uuid), Plain("u"), "ann")
    await auth.store.commit(Transaction(puts={path: msgspec.msgpack.encode(stored)}))
    await refused(login(auth), Kind.INVALID, "cannot create root tokens")


async def test_a_failed_login_makes_nothing(auth: Auth) -> None:
    await write(auth)
    before = [await auth.stored(kind) for kind in ("token", "accessor", "mount", "due")]
    auth.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "away")
    await refused(login(auth), Kind.UNAVAILABLE)
    after = [await auth.stored(kind) for kind in ("token", "accessor", "mount", "due")]
    assert after == before
    assert (await login(auth)).auth.client_token


async def test_create_and_update_are_rights_of_their_own(auth: Auth) -> None:
    fields = {"username": "ann", "password": "a"}
    await refused(auth("WriteUser", login_context(may_create=False), **fields), Kind.DENIED)
    await auth("WriteUser", login_context(may_update=False), **fields)
    await refused(auth("WriteUser", login_context(may_update=False), **fields), Kind.DENIED)


async def test_addresses_bind_logins_and_tokens(auth: Auth) -> None:
    await write(auth, token_bound_cidrs=texts("10.0.0.0/8"))
    await refused(login(auth, address="11.0.0.1"), Kind.DENIED)
    made = (await login(auth, address="10.0.0.1")).auth
    assert await auth.entry(made.client_token, "10.9.9.9")
    await refused(auth.entry(made.client_token, "11.0.0.1"), Kind.DENIED)


async def test_a_token_is_bound_to_the_address_of_its_login(auth: Auth) -> None:
    await write(auth, token_strictly_bind_ip=True)
    made = (await login(auth, address="10.0.0.1")).auth
    assert await auth.entry(made.client_token, "10.0.0.1")
    await refused(auth.entry(made.client_token, "10.0.0.2"), Kind.DENIED)
    assert await auth.entry((await login(auth, address="::1")).auth.client_token, "::1")
    await refused(login(auth, address=""), Kind.DENIED)
    ranges = texts("10.0.0.0/8")
    await refused(write(auth, token_bound_cidrs=ranges), Kind.INVALID, "set only one")
    await write(auth, token_bound_cidrs=ranges, token_strictly_bind_ip=False)
    assert await auth.entry(made.client_token, "10.0.0.1")
    await refused(auth.entry(made.client_token, "10.0.0.2"), Kind.DENIED)


async def test_the_addresses_have_an_old_name(auth: Auth) -> None:
    async def cidrs(**given: Any) -> list[str]:
        await auth("WriteUser", login_context(), username="ann", password="a", **given)
        shown = await auth("ReadUser", login_context(), username="ann")
        return list(shown.settings.token_bound_cidrs.values)

    assert await cidrs(bound_cidrs=texts("10.0.0.0/8")) == ["10.0.0.0/8"]
    newer = login_pb2.TokenSettings(token_bound_cidrs=texts("10.1.0.0/16"))
    assert await cidrs(bound_cidrs=texts("10.2.0.0/16"), settings=newer) == ["10.1.0.0/16"]


async def test_spans_have_old_names(auth: Auth) -> None:
    async def spans(**given: Any) -> tuple[int, int]:
        fields = {"username": "ann", "password": "a", **given}
        await auth("WriteUser", login_context(), **fields)
        shown = (await auth("ReadUser", login_context(), username="ann")).settings
        return shown.token_ttl, shown.token_max_ttl

    assert await spans(ttl=60, max_ttl=120) == (60, 120)
    assert await spans(max_ttl=180) == (60, 180)
    settings = login_pb2.TokenSettings(token_ttl=70)
    assert await spans(ttl=10, max_ttl=100, settings=settings) == (70, 100)
    await refused(spans(ttl=200), Kind.INVALID, "token_ttl")


async def test_a_token_is_renewed_by_what_its_user_allows_now(auth: Auth) -> None:
    await write(auth, token_ttl=60, token_max_ttl=150)
    made = (await login(auth)).auth
    auth.clock.advance(50)
    assert (await auth("RenewToken", token=made.client_token)).auth.lease_duration == 60
    auth.clock.advance(55)
    assert (await auth("RenewToken", token=made.client_token)).auth.lease_duration == 45
    await auth("DeleteUser", login_context(), username="ann")
    await refused(auth("RenewToken", token=made.client_token), Kind.INVALID, "does not exist")


@pytest.mark.parametrize(
    ("method", "fields", "kind"),
    [
        ("DeleteUser", {"username": "ann"}, Kind.INVALID),
        ("WritePassword", {"username": "ann", "password": "other"}, Kind.INVALID),
        ("DropMount", {"mount_uuid": LOGIN_MOUNT.uuid}, Kind.INVALID),
    ],
)
async def test_no_token_is_made_by_what_ended_while_it_was_checked(
    auth: Auth, method: str, fields: dict[str, str], kind: Kind
) -> None:
    await write(auth)
    before_the_next("token", auth, lambda: auth(method, login_context(), **fields))
    await refused(login(auth), kind, WRONG)
    assert await auth.stored("token") == 1


async def test_a_user_that_is_changed_during_a_login_logs_in_as_changed(auth: Auth) -> None:
    await write(auth)
    before_the_next("token", auth, lambda: write(auth, token_policies=texts("app")))
    assert list((await login(auth)).auth.policies) == ["app", "default"]


async def test_no_renewal_goes_past_what_the_mount_allows(auth: Auth) -> None:
    mount = replace(LOGIN_MOUNT, max_lease_ttl=150)
    await write(auth, token_ttl=100, token_max_ttl=1_000)
    made = (await login(auth, mount=mount)).auth
    auth.clock.advance(90)
    assert (await auth("RenewToken", token=made.client_token)).auth.lease_duration == 60


async def test_a_token_is_renewed_within_the_bounds_that_its_mount_has_now(auth: Auth) -> None:
    await write(auth)
    made = (await login(auth, mount=replace(LOGIN_MOUNT, default_lease_ttl=100))).auth
    auth.clock.advance(50)
    found = await auth("FindMountOfToken", token=made.client_token)
    assert found.mount_uuid == LOGIN_MOUNT.uuid
    for usual, longest, left in ((70, 1_000, 70), (200, 1_000, 200), (200, 90, 40)):
        tuned = replace(LOGIN_MOUNT, default_lease_ttl=usual, max_lease_ttl=longest)
        context = msgspec.structs.replace(await auth.context(made.client_token), mount=tuned)
        assert (await auth("RenewSelf", context)).auth.lease_duration == left
    await write(auth, token_ttl=80, token_max_ttl=150)
    tuned = replace(LOGIN_MOUNT, default_lease_ttl=20, max_lease_ttl=120)
    context = msgspec.structs.replace(await auth.context(made.client_token), mount=tuned)
    for increment, left in ((0, 70), (30, 30), (1_000, 70)):
        renewed = await auth("RenewSelf", context, increment=increment)
        assert renewed.auth.lease_duration == left


async def test_a_token_is_named_in_three_ways(auth: Auth) -> None:
    await write(auth)
    made = (await login(auth)).auth
    entry = await auth.entry(made.client_token)
    names: list[dict[str, Any]] = [
        {"id": entry.id},
        {"token": made.client_token},
        {"accessor": made.accessor},
    ]
    for name in names:
        assert (await auth("FindMountOfToken", **name)).mount_uuid == LOGIN_MOUNT.uuid
    names = [{}, {"id": "none"}, {"token": "none"}, {"accessor": "none"}, {"token": ROOT}]
    for name in names:
        assert (await auth("FindMountOfToken", **name)).mount_uuid == ""


async def test_no_token_is_made_under_a_path_from_which_its_mount_has_moved(auth: Auth) -> None:
    await write(auth)
    moved: dict[str, Any] = {"mount_uuid": LOGIN_MOUNT.uuid, "path": "auth/there/", "moves": 1}
    before_the_next("token", auth, lambda: auth("EndMovedTokens", **moved))
    await refused(login(auth), Kind.NOT_FOUND, "the mount was moved")
    assert await auth.stored("token") == 1
    there = replace(LOGIN_MOUNT, path="auth/there/")
    assert await auth.works((await login(auth, mount=there)).auth.client_token)
    # What is said late of an earlier move changes nothing.
    await auth("EndMovedTokens", **{**moved, "path": LOGIN_MOUNT.path, "moves": 2})
    await auth("EndMovedTokens", **moved)
    await login(auth)
    await refused(login(auth, mount=there), Kind.NOT_FOUND, "the mount was moved")
    await auth("DropMount", mount_uuid=LOGIN_MOUNT.uuid)
    await auth("EndMovedTokens", **{**moved, "moves": 3})
    assert await auth.stored("moved") == 0


async def test_a_user_that_is_written_while_its_mount_is_disabled_goes_with_it(auth: Auth) -> None:
    before_the_next("userpass", auth, lambda: auth("DropMount", mount_uuid=LOGIN_MOUNT.uuid))
    await refused(write(auth), Kind.NOT_FOUND, "the mount was disabled")
    for seconds, marks in ((0, 1), (86_399, 1), (1, 0)):
        auth.clock.advance(seconds)
        await auth.service.marks.once()
        assert (await auth.stored("gone"), await auth.stored("userpass")) == (marks, 0)


async def test_a_disabled_mount_takes_its_tokens_and_users_along(auth: Auth) -> None:
    await write(auth)
    made = (await login(auth)).auth
    await auth("DropMount", mount_uuid=LOGIN_MOUNT.uuid)
    assert not await auth.works(made.client_token)
    await auth.clean()
    for kind in ("userpass", "mount"):
        assert await auth.stored(kind) == 0
    assert await auth.stored("token") == 1
    await auth("DropMount", mount_uuid=LOGIN_MOUNT.uuid)

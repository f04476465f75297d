"""Tokens: making, using, renewing, revoking, and what is left of them."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.auth.harness import ROOT, TOKEN_MOUNT, Auth, count, refused, texts

from strongroom.auth.v1 import token_pb2
from strongroom_auth.config import Config
from strongroom_auth.service import build
from strongroom_auth.tokens import cleanup
from strongroom_auth.tokens.tokens import Grant
from strongroom_runtime import lifetimes
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.service import Host
from strongroom_runtime.storage import Plain


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


async def test_the_root_token_may_everything_and_lives_until_it_is_revoked(auth: Auth) -> None:
    entry = await auth.entry(ROOT)
    assert (list(entry.policies), entry.expire_time, entry.cacheable) == (["root"], 0, True)
    assert entry.dependencies
    auth.clock.advance(10**9)
    await auth("RevokeSelf", await auth.context(ROOT))
    assert not await auth.works(ROOT)


async def test_only_the_hmac_of_a_token_is_stored(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    assert made.client_token.startswith("srs.")
    stored = b"".join([e.value for e in await auth.store.scan(())])
    paths = str([e.path for e in await auth.store.scan(())])
    assert made.client_token.encode() not in stored
    assert made.client_token not in paths


async def test_what_a_token_is(auth: Auth) -> None:
    made = await auth.create(
        policies=["App", " ops "], ttl=60, meta={"who": "ann"}, display_name="x y/", num_uses=0
    )
    assert list(made.policies) == ["app", "default", "ops"]
    assert (made.lease_duration, made.renewable, made.orphan) == (60, True, False)
    info = (await auth("LookupToken", token=made.client_token)).info
    assert (info.id, info.ttl, info.creation_ttl) == (made.client_token, 60, 60)
    assert (json.loads(info.meta), info.display_name) == ({"who": "ann"}, "token-x-y")
    assert info.expire_time.seconds == 1_700_000_060
    by_accessor = (await auth("LookupAccessor", accessor=made.accessor)).info
    assert (by_accessor.id, by_accessor.accessor) == ("", made.accessor)
    own = (await auth("LookupSelf", await auth.context(made.client_token))).info
    assert own.path == "auth/token/create"


@pytest.mark.parametrize("text", ["", "nothing", "srs.unknown", "x" * 5000, "\0"])
async def test_an_unknown_token_is_denied(auth: Auth, text: str) -> None:
    await refused(auth.entry(text), Kind.DENIED, "permission denied")


async def test_a_token_ends_when_its_time_is_over(auth: Auth) -> None:
    made = await auth.create(policies=["app"], ttl=60)
    child = await auth.create(by=made.client_token, ttl=600)
    auth.clock.advance(59)
    assert await auth.works(made.client_token)
    auth.clock.advance(2)
    assert not await auth.works(made.client_token)
    assert not await auth.works(child.client_token)
    await auth.clean()
    assert await auth.stored("token") == 1
    for kind in ("due", "child", "cleanup"):
        assert await auth.stored(kind) == 0
    assert sorted(auth.kv.dropped) == sorted(set(auth.kv.dropped))
    assert len(auth.kv.dropped) == 2


async def test_revoking_kills_all_descendants_at_once_and_leaves_nothing(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    tokens, level = [made.client_token], [made.client_token]
    for _ in range(3):
        level = [(await auth.create(by=t)).client_token for t in level for _ in range(3)]
        tokens += level
    other = await auth.create(policies=["app"])
    await auth("RevokeToken", token=made.client_token)
    # Before any cleaning has been done:
    for text in tokens:
        assert not await auth.works(text)
    assert await auth.works(other.client_token)
    await auth.clean()
    assert await auth.stored("token") == 2
    assert await auth.stored("accessor") == 2
    assert len(auth.kv.dropped) == len(tokens) == 40


async def test_children_outlive_a_parent_that_is_revoked_alone(auth: Auth) -> None:
    parent = await auth.create(policies=["app"])
    child = await auth.create(by=parent.client_token)
    grandchild = await auth.create(by=child.client_token)
    await auth("RevokeOrphan", token=parent.client_token)
    assert not await auth.works(parent.client_token)
    assert await auth.works(grandchild.client_token)
    await auth.clean()
    assert await auth.works(grandchild.client_token)
    await refused(auth("LookupAccessor", accessor=parent.accessor), Kind.INVALID)
    # The one above them does not matter to them any more.
    await auth("RevokeToken", token=ROOT)
    assert await auth.works(grandchild.client_token)
    await auth("RevokeToken", token=child.client_token)
    assert not await auth.works(grandchild.client_token)
    await auth.clean()
    for kind in ("token", "accessor", "child", "cleanup", "due"):
        assert await auth.stored(kind) == 0, kind


@pytest.mark.parametrize("above_first", [False, True])
async def test_children_of_one_that_was_revoked_alone_outlive_those_above_it(
    auth: Auth, above_first: bool
) -> None:
    above = await auth.create(policies=["app"])
    parent = await auth.create(by=above.client_token)
    between = await auth.create(by=parent.client_token)
    child = await auth.create(by=between.client_token)
    await auth("RevokeOrphan", token=parent.client_token)
    await auth("RevokeOrphan", token=between.client_token)
    if not above_first:
        await auth.clean()
    await auth("RevokeToken", token=above.client_token)
    await auth("RevokeToken", token=parent.client_token)  # again: it is gone already
    await auth.clean()
    assert await auth.works(child.client_token)
    await auth("RevokeToken", token=child.client_token)
    await auth.clean()
    assert await auth.stored("token") == 1
    for kind in ("child", "cleanup"):
        assert await auth.stored(kind) == 0, kind


async def test_what_a_token_obtained_is_removed_even_if_that_takes_long(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    token_id = (await auth.entry(made.client_token)).id
    auth.kv.away = True
    await auth("RevokeToken", token=made.client_token)
    await auth.clean()
    assert await auth.stored("cleanup") == 1
    auth.kv.away = False
    auth.clock.advance(5)
    await auth.clean()
    assert auth.kv.dropped == [token_id]
    assert await auth.stored("cleanup") == 0


async def test_two_workers_disturb_nothing(auth: Auth) -> None:
    twin = await auth.twin()
    for _ in range(20):
        await auth.create(policies=["app"], ttl=5)
    auth.clock.advance(10)
    await count([auth.clean(), twin.clean()])
    await auth.clean()
    assert await auth.stored("token") == 1
    assert len({*auth.kv.dropped, *twin.kv.dropped}) == 20


async def test_no_child_of_a_revoked_parent_is_left(auth: Auth) -> None:
    parent = await auth.create(policies=["app"])
    context = await auth.context(parent.client_token)
    await auth("RevokeToken", token=parent.client_token)
    parameters = token_pb2.TokenParameters()
    await refused(auth("CreateToken", context, parameters=parameters), Kind.DENIED)


async def test_a_token_says_at_its_last_use_until_when_it_was_for(auth: Auth) -> None:
    """Spring Vault looks a token up by its one use, to know how long it may serve."""
    made = await auth.create(policies=["app"], num_uses=2, ttl=60)
    forever = await auth.create(policies=["root"], num_uses=1)
    auth.clock.advance(10)
    for uses in (1, 0):
        context = await auth.context(made.client_token)
        info = (await auth("LookupSelf", context)).info
        assert (info.num_uses, info.ttl, info.renewable) == (uses, 50, True)
        assert info.expire_time.seconds == info.issue_time.seconds + 60
    await refused(auth.entry(made.client_token), Kind.DENIED)
    info = (await auth("LookupSelf", await auth.context(forever.client_token))).info
    assert (info.ttl, info.HasField("expire_time")) == (0, False)


async def test_uses_are_counted_exactly_over_replicas(auth: Auth) -> None:
    twin = await auth.twin()
    made = await auth.create(policies=["app"], num_uses=20)
    done = await count([(auth, twin)[n % 2].entry(made.client_token) for n in range(60)])
    assert done == 20
    assert not await auth.works(made.client_token)
    # The process that made the last use may have died before it revoked the token.
    auth.clock.advance(2)
    await auth.clean()
    assert await auth.stored("token") == 1


async def test_the_last_use_is_marked(auth: Auth) -> None:
    made = await auth.create(policies=["app"], num_uses=2)
    first = await auth.entry(made.client_token)
    assert (first.last_use, first.cacheable, first.num_uses) == (False, False, 1)
    last = await auth.entry(made.client_token)
    assert (last.last_use, last.num_uses) == (True, 0)
    await auth("FinishLastUse", id=last.id)
    await auth("FinishLastUse", id=last.id)
    assert await auth.stored("token") == 1


async def test_a_limited_token_makes_no_children(auth: Auth) -> None:
    made = await auth.create(policies=["app"], num_uses=5)
    await refused(
        auth.create(by=made.client_token), Kind.INVALID, "restricted use token cannot generate"
    )


async def test_renewal(auth: Auth) -> None:
    made = await auth.create(policies=["app"], ttl=100, explicit_max_ttl=250)
    auth.clock.advance(90)
    renewed = await auth("RenewToken", token=made.client_token)
    assert (renewed.auth.lease_duration, list(renewed.warnings)) == (100, [])
    auth.clock.advance(90)
    capped = await auth("RenewSelf", await auth.context(made.client_token), increment=500)
    assert capped.auth.lease_duration == 70
    assert "capped" in capped.warnings[0]
    info = (await auth("LookupToken", token=made.client_token)).info
    assert (info.ttl, info.last_renewal_time) == (70, 1_700_000_180)
    by_accessor = await auth("RenewAccessor", accessor=made.accessor, increment=10)
    assert (by_accessor.auth.client_token, by_accessor.auth.lease_duration) == ("", 10)
    auth.clock.advance(11)
    await refused(auth("RenewToken", token=made.client_token), Kind.INVALID, "token not found")
    await auth.clean()
    assert await auth.stored("due") == 0


@pytest.mark.parametrize("how", ["RenewToken", "RenewSelf", "RenewAccessor"])
async def test_without_an_increment_a_token_gets_what_it_was_given_last(
    auth: Auth, how: str
) -> None:
    made = await auth.create(policies=["app"], ttl=3600, explicit_max_ttl=10_800)
    context = await auth.context(made.client_token)
    fields = {
        "RenewToken": {"token": made.client_token},
        "RenewSelf": {},
        "RenewAccessor": {"accessor": made.accessor},
    }[how]

    async def renewed(increment: int = 0) -> int:
        answer = await auth(how, context, increment=increment, **fields)
        return int(answer.auth.lease_duration)

    given = [await renewed(i) for i in (0, 7200, 0, 18_000, 0, 600, 0)]
    assert given == [3600, 7200, 7200, 10_800, 10_800, 600, 600]
    auth.clock.advance(300)
    assert await renewed() == 600
    info = (await auth("LookupToken", token=made.client_token)).info
    assert (info.ttl, info.creation_ttl) == (600, 3600)


async def test_a_token_can_be_renewed_the_moment_it_was_made(auth: Auth) -> None:
    made = await auth.create(policies=["app"], ttl=60)
    renewed = await auth("RenewToken", token=made.client_token)
    assert renewed.auth.lease_duration == 60


async def test_what_cannot_be_renewed(auth: Auth) -> None:
    fixed = await auth.create(policies=["app"], ttl=60, renewable=False)
    for text in (fixed.client_token, ROOT):
        await refused(auth("RenewToken", token=text), Kind.INVALID, "lease is not renewable")


async def test_a_periodic_token_lives_as_long_as_it_is_renewed(auth: Auth) -> None:
    made = await auth.create(policies=["app"], period=100)
    for _ in range(50):
        auth.clock.advance(99)
        renewed = await auth("RenewToken", token=made.client_token, increment=10_000_000)
        assert renewed.auth.lease_duration == 100
    auth.clock.advance(101)
    assert not await auth.works(made.client_token)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policies": ["root"]}, "root tokens may not be created without parent"),
        ({"policies": [" ROOT "]}, "root tokens may not be created without parent"),
        ({"policies": ["other"]}, "child policies must be subset of parent"),
        ({"no_parent": True}, "root or sudo privileges required to create orphan token"),
        ({"period": 60}, "root or sudo privileges required to create periodic token"),
        ({"id": "chosen"}, "root or sudo privileges required to specify token id"),
        ({"type": "batch"}, "only service tokens"),
        ({"ttl": -1}, "must not be negative"),
        ({"num_uses": -1}, "num_uses"),
        ({"entity_alias": "x"}, "entities are not supported"),
    ],
)
async def test_what_a_caller_may_not_ask_for(
    auth: Auth, fields: dict[str, Any], message: str
) -> None:
    made = await auth.create(policies=["app"])
    before = await auth.stored("token")
    await refused(auth.create(by=made.client_token, **fields), Kind.INVALID, message)
    assert await auth.stored("token") == before


async def test_sudo_allows_more_but_never_root(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    wide = await auth.create(by=made.client_token, sudo=True, policies=["other"], no_parent=True)
    assert (list(wide.policies), wide.orphan) == (["default", "other"], True)
    await auth("RevokeToken", token=made.client_token)
    assert await auth.works(wide.client_token)
    chosen = await auth.create(id="my-own-token", policies=["app"])
    assert chosen.client_token == "my-own-token"
    await refused(auth.create(id="my-own-token"), Kind.INVALID, "duplicate ID")


async def test_a_child_gets_its_parents_policies(auth: Auth) -> None:
    made = await auth.create(policies=["app"], no_default_policy=True)
    assert list(made.policies) == ["app"]
    # What the parent does not have, default included, is not its to give.
    for asked in ([], ["app"]):
        child = await auth.create(by=made.client_token, policies=asked)
        assert list(child.policies) == ["app"]
    call = auth.create(by=made.client_token, policies=["app", "default"])
    await refused(call, Kind.INVALID, "child policies must be subset of parent")
    free = await auth.create(by=made.client_token, sudo=True, policies=["app"])
    assert list(free.policies) == ["app", "default"]
    both = await auth.create(policies=["app"])
    child = await auth.create(by=both.client_token, policies=["app"])
    assert list(child.policies) == ["app", "default"]


async def test_a_list_of_blank_names_does_not_give_the_policies_of_the_parent(auth: Auth) -> None:
    for blank in ([""], [" ", ""]):
        assert list((await auth.create(policies=blank)).policies) == ["default"]
    bare = await auth.create(policies=[""], no_default_policy=True)
    assert list(bare.policies) == []
    app = await auth.create(policies=["app"], no_default_policy=True)
    assert list((await auth.create(by=app.client_token, policies=[""])).policies) == []
    role = token_pb2.TokenRole(allowed_policies=texts("app", "ops"))
    await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=role)
    assert list((await auth.create(role="r", policies=[""])).policies) == ["default"]


@pytest.mark.parametrize(
    ("role", "asked", "policies"),
    [
        ({}, [], ["app"]),
        ({}, ["app"], ["app"]),
        ({"disallowed_policies": texts("ops")}, ["app"], ["app", "default"]),
        ({"allowed_policies_glob": texts("o*")}, [], ["default"]),
        ({"allowed_policies_glob": texts("o*")}, ["ops"], ["default", "ops"]),
    ],
)
async def test_a_role_that_limits_no_policies_gives_what_the_parent_has(
    auth: Auth, role: dict[str, Any], asked: list[str], policies: list[str]
) -> None:
    message = token_pb2.TokenRole(**role)
    await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=message)
    made = await auth.create(policies=["app"], no_default_policy=True)
    child = await auth.create(by=made.client_token, role="r", policies=asked)
    assert list(child.policies) == policies


async def test_the_lesser_of_what_the_role_and_the_caller_say_counts(auth: Auth) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(token_num_uses=5, token_period=100, token_explicit_max_ttl=1000)
    await auth("WriteTokenRole", context, role_name="r", role=role)
    for uses, period, longest in ((2, 50, 500), (9, 200, 2000)):
        parameters = token_pb2.TokenParameters(
            policies=["default"], num_uses=uses, period=period, explicit_max_ttl=longest
        )
        answer = await auth("CreateToken", context, role_name="r", parameters=parameters)
        assert answer.auth.num_uses == min(uses, 5)
        assert answer.auth.lease_duration == min(period, 100)
        assert [text.split(";")[1] for text in answer.warnings] == [
            f" using the lesser value of {min(longest, 1000)} seconds",
            f" using the lesser value of {min(period, 100)} seconds",
        ]
        info = (await auth("LookupAccessor", accessor=answer.auth.accessor)).info
        assert info.explicit_max_ttl == min(longest, 1000)


async def test_a_token_is_renewed_as_its_role_is_then(auth: Auth) -> None:
    context = await auth.context(ROOT)

    async def write(**role: Any) -> None:
        message = token_pb2.TokenRole(**role)
        await auth("WriteTokenRole", context, role_name="r", role=message)

    await write(token_period=100)
    made = await auth.create(role="r", policies=["app"])
    await write(token_period=300)
    renewed = await auth("RenewToken", token=made.client_token)
    assert renewed.auth.lease_duration == 300
    await write(token_period=0, token_explicit_max_ttl=150)
    auth.clock.advance(100)
    renewed = await auth("RenewToken", token=made.client_token, increment=1000)
    assert renewed.auth.lease_duration == 50
    await auth("DeleteTokenRole", context, role_name="r")
    await refused(auth("RenewToken", token=made.client_token), Kind.INVALID, "does not exist")


async def test_a_renewal_past_the_longest_time_is_refused_and_ends_nothing(auth: Auth) -> None:
    context = await auth.context(ROOT)
    await auth("WriteTokenRole", context, role_name="r", role=token_pb2.TokenRole())
    made = await auth.create(role="r", policies=["app"], ttl=1000)
    auth.clock.advance(100)
    role = token_pb2.TokenRole(token_explicit_max_ttl=50)
    await auth("WriteTokenRole", context, role_name="r", role=role)
    call = auth("RenewToken", token=made.client_token)
    await refused(call, Kind.INVALID, "past the max TTL, cannot renew")
    assert (await auth("LookupToken", token=made.client_token)).info.ttl == 900


async def test_a_renewal_is_bounded_as_the_mount_is_tuned_now(auth: Auth) -> None:
    made = await auth.create(policies=["app"], ttl=1000)
    auth.clock.advance(100)
    for longest, left in ((500, 400), (3_000, 1_000)):
        tuned = replace(TOKEN_MOUNT, max_lease_ttl=longest)
        context = msgspec.structs.replace(await auth.context(made.client_token), mount=tuned)
        renewed = await auth("RenewSelf", context, increment=1_000)
        assert renewed.auth.lease_duration == left


async def test_whether_a_token_of_a_role_is_an_orphan_says_the_role(auth: Auth) -> None:
    context = await auth.context(ROOT)
    for orphan in (False, True):
        role = token_pb2.TokenRole(orphan=orphan)
        await auth("WriteTokenRole", context, role_name="r", role=role)
        assert (await auth.create(role="r", policies=["app"], no_parent=True)).orphan is orphan


async def test_a_period_is_no_longer_than_the_mount_allows(auth: Auth) -> None:
    parameters = token_pb2.TokenParameters(policies=["default"], period=36_000_000)
    answer = await auth("CreateToken", await auth.context(ROOT), parameters=parameters)
    assert answer.auth.lease_duration == TOKEN_MOUNT.max_lease_ttl
    said = 'period of "10000h" exceeded the effective max_ttl of "768h"'
    assert [text.split(";")[0] for text in answer.warnings] == [said]


async def test_a_root_token_that_is_to_end_lives_that_long(auth: Auth) -> None:
    parameters = token_pb2.TokenParameters(explicit_max_ttl=3600)
    answer = await auth("CreateToken", await auth.context(ROOT), parameters=parameters)
    assert (answer.auth.lease_duration, list(answer.warnings)) == (3600, [])


async def test_an_address_outside_the_bounds_is_denied(auth: Auth) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(token_bound_cidrs=texts("10.0.0.0/8", "::1"))
    await auth("WriteTokenRole", context, role_name="net", role=role)
    made = await auth.create(role="net", policies=["app"])
    assert await auth.entry(made.client_token, "10.1.2.3")
    assert await auth.entry(made.client_token, "::1")
    for address in ("11.0.0.1", "", "nonsense"):
        await refused(auth.entry(made.client_token, address), Kind.DENIED)


async def test_a_root_token_that_ends_makes_none_that_does_not(auth: Auth) -> None:
    ending = (await auth.create(policies=["root"], ttl=60)).client_token
    for no_parent in (False, True):
        call = auth.create(by=ending, sudo=True, policies=["root"], no_parent=no_parent)
        await refused(call, Kind.INVALID, "expiring root tokens cannot create")
    assert (await auth.create(by=ending, policies=["root"], ttl=120)).lease_duration == 120
    assert (await auth.create(by=ending, policies=["app"])).lease_duration > 0
    assert (await auth.create(policies=["root"])).lease_duration == 0


async def test_a_role_binds_tokens_to_the_address_that_asked_for_them(auth: Auth) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(token_strictly_bind_ip=True)
    await auth("WriteTokenRole", context, role_name="net", role=role)
    made = await auth.create(role="net", policies=["app"])
    assert await auth.entry(made.client_token, "127.0.0.1")
    await refused(auth.entry(made.client_token, "127.0.0.2"), Kind.DENIED)
    role = token_pb2.TokenRole(token_bound_cidrs=texts("10.0.0.0/8"))
    call = auth("WriteTokenRole", context, role_name="net", role=role)
    await refused(call, Kind.INVALID, "set only one")


async def test_a_child_may_be_used_where_its_parent_may(auth: Auth) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(token_bound_cidrs=texts("127.0.0.0/8"))
    await auth("WriteTokenRole", context, role_name="net", role=role)
    parent = await auth.create(role="net", policies=["app"])
    child = await auth.create(by=parent.client_token)
    await refused(auth.entry(child.client_token, "10.0.0.1"), Kind.DENIED)
    orphan = await auth.create(by=parent.client_token, sudo=True, no_parent=True)
    assert await auth.entry(orphan.client_token, "10.0.0.1")  # for which sudo is needed


async def test_policies_beside_root_are_left_out(auth: Auth) -> None:
    assert list((await auth.create(policies=["app", "root"])).policies) == ["root"]


async def test_no_other_token_passes_for_a_wrapping_token(auth: Auth) -> None:
    for by_role in ("", "r"):
        role = token_pb2.TokenRole(allowed_policies=texts("app", "response-wrapping"))
        await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=role)
        call = auth.create(policies=["Response-Wrapping"], role=by_role)
        await refused(call, Kind.INVALID, "cannot assign policy")


@pytest.mark.parametrize(
    ("role", "asked", "policies"),
    [
        ({}, {"policies": ["default", "app"], "no_default_policy": True}, ["app"]),
        (
            {"allowed_policies": texts("app", "default")},
            {"no_default_policy": True},
            ["app"],
        ),
        ({"allowed_policies": texts("app"), "disallowed_policies": texts("default")}, {}, ["app"]),
        ({"disallowed_policies_glob": texts("d*")}, {"policies": ["app"]}, ["app"]),
        (
            {"allowed_policies": texts("app", "default"), "token_no_default_policy": True},
            {},
            ["app", "default"],
        ),
        ({"allowed_policies": texts("app"), "disallowed_policies_glob": texts("d*")}, {}, ["app"]),
    ],
)
async def test_default_is_given_where_neither_the_role_nor_the_caller_is_against_it(
    auth: Auth, role: dict[str, Any], asked: dict[str, Any], policies: list[str]
) -> None:
    message = token_pb2.TokenRole(**role)
    await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=message)
    made = await auth.create(role="r" if role else "", **asked)
    assert list(made.policies) == policies


async def test_a_role_that_forbids_default_refuses_it(auth: Auth) -> None:
    message = token_pb2.TokenRole(
        allowed_policies=texts("app"), disallowed_policies_glob=texts("d*")
    )
    await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=message)
    await refused(auth.create(role="r", policies=["default", "app"]), Kind.INVALID, "subset")


async def test_token_roles(auth: Auth) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(
        allowed_policies=texts("App"),
        allowed_policies_glob=texts("team-*"),
        disallowed_policies=texts("team-x"),
        orphan=True,
        token_period=60,
        token_num_uses=3,
        path_suffix="v1",
    )
    await auth("WriteTokenRole", context, role_name="ci", role=role)
    made = await auth.create(role="ci", policies=["team-a"])
    assert (list(made.policies), made.orphan) == (["default", "team-a"], True)
    assert (made.lease_duration, made.num_uses) == (60, 3)
    info = (await auth("LookupToken", token=made.client_token)).info
    assert (info.path, info.role, info.period) == ("auth/token/create/ci/v1", "ci", 60)
    assert list((await auth.create(role="ci")).policies) == ["app", "default"]
    for policies in (["team-x"], ["other"], ["root"]):
        await refused(auth.create(role="ci", policies=policies), Kind.INVALID, "subset")
    await refused(auth.create(role="none"), Kind.INVALID, "unknown role")
    shown = (await auth("ReadTokenRole", context, role_name="ci")).role
    assert list(shown.allowed_policies.values) == ["app"]
    assert shown.token_type == "default-service"
    for kind in ("", "default"):  # names of login methods' settings
        await auth(
            "WriteTokenRole", context, role_name="ci", role=token_pb2.TokenRole(token_type=kind)
        )
        role = (await auth("ReadTokenRole", context, role_name="ci")).role
        assert role.token_type == "default-service"
    assert list((await auth("ListTokenRoles", context)).keys) == ["ci"]
    await auth("DeleteTokenRole", context, role_name="ci")
    await refused(auth("ReadTokenRole", context, role_name="ci"), Kind.NOT_FOUND)
    assert await auth.works(made.client_token)


OLD_NAMES: list[tuple[str, str, Any, Any]] = [
    ("period", "token_period", 60, 120),
    ("explicit_max_ttl", "token_explicit_max_ttl", 60, 120),
    ("bound_cidrs", "token_bound_cidrs", texts("10.0.0.0/8"), texts("127.0.0.1")),
]


@pytest.mark.parametrize(("old", "new", "one", "other"), OLD_NAMES)
async def test_an_old_name_of_a_roles_setting_is_shown_where_it_was_written_last(
    auth: Auth, old: str, new: str, one: Any, other: Any
) -> None:
    context = await auth.context(ROOT)
    none = texts() if new == "token_bound_cidrs" else 0

    async def written(**given: Any) -> tuple[Any, Any, list[str]]:
        role = token_pb2.TokenRole(**given)
        said = (await auth("WriteTokenRole", context, role_name="r", role=role)).warnings
        shown = (await auth("ReadTokenRole", context, role_name="r")).role
        return getattr(shown, old), getattr(shown, new), list(said)

    assert await written() == (none, none, [])
    assert await written(**{old: one}) == (one, one, [])
    assert await written(orphan=True) == (one, one, [])
    assert await written(**{new: other}) == (none, other, [])
    assert await written(**{old: one}) == (one, one, [])
    warning = f"Both '{new}' and deprecated '{old}' value supplied, ignoring the deprecated value"
    assert await written(**{old: one, new: other}) == (none, other, [warning])
    assert await written(**{old: none}) == (none, none, [])


async def test_old_names_of_a_roles_settings_count(auth: Auth) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(period=60, explicit_max_ttl=90, bound_cidrs=texts("10.0.0.1"))
    await auth("WriteTokenRole", context, role_name="r", role=role)
    made = await auth.create(role="r", policies=["app"])
    assert made.lease_duration == 60
    await refused(auth.entry(made.client_token), Kind.DENIED)
    info = (await auth("LookupAccessor", accessor=made.accessor)).info
    assert (info.period, info.explicit_max_ttl) == (60, 90)
    for bad in (
        token_pb2.TokenRole(bound_cidrs=texts("nope")),
        token_pb2.TokenRole(token_bound_cidrs=texts("nope")),
    ):
        call = auth("WriteTokenRole", context, role_name="r", role=bad)
        await refused(call, Kind.INVALID, "bound_cidrs")


async def test_what_a_role_does_not_have_is_left_out(auth: Auth) -> None:
    context = await auth.context(ROOT)
    await auth("WriteTokenRole", context, role_name="r", role=token_pb2.TokenRole())
    shown = (await auth("ReadTokenRole", context, role_name="r")).role
    for field in ("token_bound_cidrs", "bound_cidrs", "token_num_uses", "allowed_entity_aliases"):
        assert not shown.HasField(field)
    assert shown.HasField("period") and shown.HasField("explicit_max_ttl")
    for written, kept in ((texts("Bob", " bob ", "al*"), ["al*", "bob"]), (texts(), [])):
        role = token_pb2.TokenRole(allowed_entity_aliases=written)
        await auth("WriteTokenRole", context, role_name="r", role=role)
        shown = (await auth("ReadTokenRole", context, role_name="r")).role
        assert shown.HasField("allowed_entity_aliases")
        assert list(shown.allowed_entity_aliases.values) == kept


async def test_a_role_that_promises_more_than_its_mount_is_warned_of(auth: Auth) -> None:
    context = await auth.context(ROOT)
    longest = TOKEN_MOUNT.max_lease_ttl
    for role, warned in (
        (token_pb2.TokenRole(explicit_max_ttl=longest), 0),
        (token_pb2.TokenRole(explicit_max_ttl=longest + 1), 1),
        (token_pb2.TokenRole(token_explicit_max_ttl=longest), 0),
        (token_pb2.TokenRole(token_explicit_max_ttl=longest + 1), 1),
    ):
        said = await auth("WriteTokenRole", context, role_name="r", role=role)
        assert len(said.warnings) == warned


@pytest.mark.parametrize("glob", ["dev?", "dev[ab]"])
async def test_only_an_asterisk_stands_for_others_in_a_policy_of_a_role(
    auth: Auth, glob: str
) -> None:
    context = await auth.context(ROOT)
    role = token_pb2.TokenRole(allowed_policies_glob=texts(glob))
    said = (await auth("WriteTokenRole", context, role_name="r", role=role)).warnings
    assert [text.partition(":")[0] for text in said] == ["allowed_policies_glob"]
    await auth.create(role="r", policies=[glob])
    call = auth.create(role="r", policies=["deva"])
    await refused(call, Kind.INVALID, "subset of the role's allowed policies")
    role = token_pb2.TokenRole(disallowed_policies_glob=texts(glob))
    await auth("WriteTokenRole", context, role_name="not", role=role)
    await auth.create(role="not", policies=["deva"])
    await refused(auth.create(role="not", policies=[glob]), Kind.INVALID, "subset")


async def test_globs_of_a_role_are_in_lower_case_like_policies(auth: Auth) -> None:
    role = token_pb2.TokenRole(allowed_policies_glob=texts("Team-*"))
    await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=role)
    assert "team-a" in (await auth.create(role="r", policies=["TEAM-a"])).policies


@pytest.mark.parametrize(
    ("field", "role"),
    [
        ("token_bound_cidrs", token_pb2.TokenRole(token_bound_cidrs=texts("office"))),
        ("path_suffix", token_pb2.TokenRole(path_suffix="a/b c")),
        ("path_suffix", token_pb2.TokenRole(path_suffix=".hidden")),
    ],
)
async def test_bad_token_roles_are_refused(
    auth: Auth, field: str, role: token_pb2.TokenRole
) -> None:
    call = auth("WriteTokenRole", await auth.context(ROOT), role_name="ci", role=role)
    await refused(call, Kind.INVALID, field)


async def test_policies_that_do_not_exist_are_warned_of(auth: Auth) -> None:
    parameters = token_pb2.TokenParameters(policies=["app"])
    made = await auth("CreateToken", await auth.context(ROOT), parameters=parameters)
    assert list(made.warnings) == ['Policy "app" does not exist']


async def test_a_chosen_id_cannot_look_like_one_that_was_made(auth: Auth) -> None:
    await refused(auth.create(id="srs.mine"), Kind.INVALID, "id: ")


async def test_a_lookup_of_no_token_is_of_the_callers_own(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    info = (await auth("LookupToken", await auth.context(made.client_token))).info
    assert (info.accessor, info.id) == (made.accessor, "")


async def test_accessors_are_listed(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    keys = list((await auth("ListAccessors")).keys)
    assert made.accessor in keys
    assert len(keys) == 2
    assert not (await auth("RevokeAccessor", accessor=made.accessor)).warnings
    assert not await auth.works(made.client_token)
    again = await auth("RevokeAccessor", accessor=made.accessor)
    assert list(again.warnings) == ["No token found with this accessor"]
    await refused(auth("RevokeAccessor"), Kind.INVALID, "missing accessor")


async def test_a_failing_store_makes_no_token(auth: Auth) -> None:
    before = await auth.store.scan(())
    auth.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "etcd did not answer")
    await refused(auth.create(policies=["app"]), Kind.UNAVAILABLE)
    assert await auth.store.scan(()) == before


@given(
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(1, 1000),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_no_token_outlives_its_bounds(
    age: int, asked: int, usual: int, longest: int, period: int, explicit: int
) -> None:
    span = lifetimes.span(
        now=1000 + age,
        created=1000,
        asked=asked,
        usual=usual,
        longest=longest,
        period=period,
        explicit_max=explicit,
    )
    assert 0 <= span.ttl <= (period or asked or usual)
    if explicit:
        assert age + span.ttl <= max(explicit, age)
    if longest and not period:
        assert age + span.ttl <= max(longest, age)
    if longest and period:
        assert span.ttl <= longest
    assert bool(span.warnings) == (span.ttl < (period or asked or usual))


def test_a_moment_that_has_passed_is_no_warning() -> None:
    span = lifetimes.span(now=1000.5, created=1000.0, asked=60, usual=1, longest=0, explicit_max=60)
    assert (span.ttl, span.warnings) == (59, ())


async def test_who_obtains_something_is_checked_with_all_ancestors(auth: Auth) -> None:
    parent = await auth.create(policies=["root"])
    child = await auth.create(parent.client_token, policies=["root"])
    limited = await auth.create(policies=["root"], num_uses=1)
    ids = {}
    for name, each in (("parent", parent), ("child", child), ("limited", limited)):
        ids[name] = (await auth.entry(each.client_token)).id
    answer = await auth("CheckToken", id=ids["child"])
    assert (answer.alive, answer.last_use) == (True, False)
    answer = await auth("CheckToken", id=ids["limited"])  # `entry` made its last use
    assert (answer.alive, answer.last_use) == (False, True)
    await auth.service._tokens.revoke(ids["parent"])
    for name in ("parent", "child"):
        answer = await auth("CheckToken", id=ids[name])
        assert (answer.alive, answer.last_use) == (False, False)


@pytest.mark.parametrize("offset", [300.0, -300.0])
async def test_tokens_end_by_one_clock_whatever_a_machine_says(auth: Auth, offset: float) -> None:
    other = await Auth(auth.store, ManualClock(auth.clock.now() + offset)).prepare()
    clocks = [each.service.clock for each in (auth, other)]
    running = [asyncio.create_task(clock.run()) for clock in clocks]
    async with asyncio.timeout(60):
        while abs(clocks[0].now() - clocks[1].now()) > 1:
            await asyncio.sleep(0.01)
    for maker, user in ((auth, other), (other, auth)):
        made = (await maker.create(policies=["default"], ttl=60)).client_token
        for each in (auth, other):
            each.clock.advance(58)
        assert await maker.works(made)
        assert await user.works(made)
        for each in (auth, other):
            each.clock.advance(3)
        assert not await maker.works(made)
        assert not await user.works(made)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_dbcreds_is_told_of_tokens_that_ended_until_it_has_heard(auth: Auth) -> None:
    told: list[str] = []
    away = True

    class Dbcreds:
        async def call(self, method: str, request: Any, context: Any) -> Any:
            if away:
                raise ServiceError(Kind.UNAVAILABLE, "away")
            told.append(request.token_id)

    host = Host(auth.store, auth.clock, {"kv": auth.kv, "dbcreds": Dbcreds()})
    service = build(host, Config(bcrypt_rounds=4))
    await service._tokens.records.prepare()
    await service.clock.find()
    made = await auth.create(policies=["root"])
    token_id = (await auth.entry(made.client_token)).id
    await service._tokens.revoke(token_id)
    for _ in range(3):
        await service._cleanup.step()
    assert told == []
    away = False
    auth.clock.advance(5)
    for _ in range(3):
        await service._cleanup.step()
    assert told == [token_id]
    assert auth.kv.dropped == [token_id]


async def test_what_comes_into_a_cubbyhole_after_its_token_is_removed(auth: Auth) -> None:
    parent, child = await auth.create(policies=["root"]), ""
    child = (await auth.create(by=parent.client_token)).client_token
    ids = [(await auth.entry(text)).id for text in (ROOT, parent.client_token, child)]
    auth.kv.kept = [*ids, "ended-1", "ended-2"]
    await auth("RevokeOrphan", token=parent.client_token)
    await auth.clean()
    auth.kv.dropped.clear()
    for each in auth.service._swept:
        await each.sweep(auth.clock.now())
    # Of one that was revoked alone a record stands for its child.
    assert sorted(auth.kv.dropped) == sorted([ids[1], "ended-1", "ended-2"])


async def test_jobs_that_wait_are_said_once_and_done_as_soon_as_they_can_be(
    auth: Auth, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "strongroom_runtime.repeated")
    asked, away = 0, True

    class Kv:
        async def call(self, method: str, request: Any, context: Any) -> Any:
            nonlocal asked
            asked += 1
            if away:
                raise ServiceError(Kind.UNAVAILABLE, "away")

    service = build(Host(auth.store, auth.clock, {"kv": Kv()}), Config(bcrypt_rounds=4))
    await service._tokens.records.prepare()
    await service.clock.find()
    for _ in range(40):
        made = await service._tokens.create(Grant(("app",), "x", "x", ttl=360_000))
        await service._tokens.revoke(made.token.id)
    for _ in range(20):  # until all wait for long
        await service._cleanup.step()
        auth.clock.advance(300)
    await service._cleanup.step()
    assert [record.getMessage() for record in caplog.records] == ["work waits"]
    before = asked
    for _ in range(10):
        await service._cleanup.step()
        auth.clock.advance(0.1)
    assert asked - before <= 1  # one now and then, not all of them
    away = False
    auth.clock.advance(2)
    await service._cleanup.step()  # one finds that it is back
    assert asked - before <= 2
    for _ in range(3):  # those that begin at a time
        await service._cleanup.step()
    assert await auth.stored("cleanup") == 0
    assert [record.getMessage() for record in caplog.records] == ["work waits", "work goes on"]


@pytest.mark.parametrize("hang", [10, 100])
async def test_jobs_that_fail_or_hang_keep_no_other_waiting(
    auth: Auth, hang: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hang > 16:
        monkeypatch.setattr(cleanup, "_QUICK_SECONDS", 0.05)
    told: list[str] = []
    hanging: set[str] = set()
    failing: set[str] = set()

    class Dbcreds:
        async def call(self, method: str, request: Any, context: Any) -> Any:
            if request.token_id in hanging:
                await asyncio.Event().wait()
            if request.token_id in failing:
                raise ServiceError(Kind.UNAVAILABLE, "away")
            told.append(request.token_id)

    service = build(Host(auth.store, auth.clock, {"dbcreds": Dbcreds()}), Config(bcrypt_rounds=4))
    await service.start()
    made = [await service._tokens.create(Grant(("app",), "x", "x", ttl=60)) for _ in range(320)]
    ids = sorted(each.token.id for each in made)
    # All that come first in storage order.
    hanging, failing = set(ids[:hang]), set(ids[hang:300])
    for token_id in ids:
        await service._tokens.revoke(token_id)
    async with asyncio.timeout(60):
        while set(told) != set(ids[300:]):
            await asyncio.sleep(0.01)
    await service.stop()
    assert await auth.stored("cleanup") == 300


async def test_tokens_end_while_all_jobs_hang(auth: Auth) -> None:
    class Dbcreds:
        async def call(self, method: str, request: Any, context: Any) -> Any:
            await asyncio.Event().wait()

    service = build(Host(auth.store, auth.clock, {"dbcreds": Dbcreds()}), Config(tidy_seconds=0.01))
    await service.start()
    for _ in range(40):
        made = await service._tokens.create(Grant(("app",), "x", "x", ttl=600))
        await service._tokens.revoke(made.token.id)
    await service._tokens.create(Grant(("app",), "x", "x", ttl=60))
    auth.clock.advance(61)
    async with asyncio.timeout(60):
        while await auth.stored("due"):
            await asyncio.sleep(0.01)
    await service.stop()
    assert await auth.stored("cleanup") == 41


async def test_a_token_that_does_not_open_keeps_no_other_from_ending(auth: Auth) -> None:
    broken = await auth.create(ttl=60)
    others = [await auth.create(ttl=61) for _ in range(3)]
    revoked = [await auth.create(ttl=3600) for _ in range(2)]
    for each in revoked:
        await auth("RevokeToken", await auth.context(ROOT), token=each.client_token)
    token_id = auth.service._tokens.records.identify(broken.client_token)
    first_job = min(e.path for e in await auth.store.scan((Plain("cleanup"),)))
    auth.store.broken = {(Plain("token"), Plain(token_id)), first_job}
    auth.clock.advance(120)
    await auth.clean()
    for each in others:
        of = auth.service._tokens.records.identify(each.client_token)
        assert await auth.store.get((Plain("token"), Plain(of))) is None
    assert {path for path, _ in auth.store.noted} >= {first_job}
    auth.store.broken.clear()
    assert await auth.stored("cleanup") == 1

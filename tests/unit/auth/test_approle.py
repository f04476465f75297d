"""Roles for machines."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.unit.auth.harness import (
    LOGIN_MOUNT,
    Auth,
    before_the_next,
    count,
    login_context,
    only_one_more_commit,
    refused,
    texts,
)

from strongroom.auth.v1 import approle_pb2 as pb
from strongroom.auth.v1 import login_pb2
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import ConflictError, Path, Plain, Transaction

WRONG = "invalid role or secret ID"
APPROLE_MOUNT = replace(LOGIN_MOUNT, type="approle")


class Roles:
    """Calls the service for one role."""

    def __init__(self, auth: Auth) -> None:
        self.auth = auth

    async def __call__(self, method: str, **fields: Any) -> Any:
        context = login_context(**fields.pop("context", {}))
        return await self.auth(method, context, **fields)

    async def write(self, name: str = "app", settings: Any = None, **fields: Any) -> str:
        role = pb.AppRole(settings=login_pb2.TokenSettings(**(settings or {})), **fields)
        await self("WriteRole", role_name=name, role=role)
        return str((await self("ReadRoleId", role_name=name)).role_id)

    async def secret(self, name: str = "app", **fields: Any) -> Any:
        parameters = pb.SecretIdParameters(**fields)
        return (await self("CreateSecretId", role_name=name, parameters=parameters)).secret

    async def login(self, role_id: str, secret_id: str = "", **context: Any) -> Any:
        answer = await self("LoginAppRole", role_id=role_id, secret_id=secret_id, context=context)
        return answer.auth


@pytest.fixture
async def roles() -> Roles:
    return Roles(await Auth().prepare())


async def test_a_role_id_and_a_secret_id_make_a_token(roles: Roles) -> None:
    role_id = await roles.write(settings={"token_policies": texts("app"), "token_ttl": 60})
    secret = await roles.secret(metadata='{"host":"a"}')
    made = await roles.login(role_id, secret.secret_id)
    assert (list(made.policies), made.lease_duration) == (["app", "default"], 60)
    assert dict(made.metadata) == {"role_name": "app", "host": "a"}
    assert await roles.auth.works(made.client_token)
    stored = str([(e.path, e.value) for e in await roles.auth.store.scan(())])
    assert secret.secret_id not in stored


async def test_a_role_makes_no_root_tokens(roles: Roles) -> None:
    for policies in (texts("root"), texts(" ROOT")):
        await refused(
            roles.write(settings={"token_policies": policies}), Kind.INVALID, "root tokens"
        )
    await roles.write()
    given = pb.AppRole(settings=login_pb2.TokenSettings(token_policies=texts("Root")))
    await refused(
        roles("WriteRoleSetting", role_name="app", setting="policies", role=given),
        Kind.INVALID,
        "root tokens",
    )


async def test_wrong_ids_look_alike(roles: Roles) -> None:
    role_id = await roles.write()
    other_id = await roles.write("other")
    secret = await roles.secret()
    for pair in ((role_id, "x"), ("x", secret.secret_id), (other_id, secret.secret_id)):
        await refused(roles.login(*pair), Kind.INVALID, WRONG)
    await refused(roles.login(role_id), Kind.INVALID, "missing secret_id")
    await refused(roles.login(""), Kind.INVALID, "missing role_id")


async def test_wrong_secret_ids_lock_a_role(roles: Roles) -> None:
    role_id = await roles.write()
    secret = await roles.secret()
    twin = Roles(await roles.auth.twin())
    for n in range(4):
        await refused((roles, twin)[n % 2].login(role_id, "x"), Kind.INVALID, WRONG)
    assert (await roles.login(role_id, secret.secret_id)).client_token
    await count([(roles, twin)[n % 2].login(role_id, "x") for n in range(5)])
    for each in (secret.secret_id, "x"):
        await refused(twin.login(role_id, each), Kind.DENIED)
    listed = await roles("ListLockedNames", context={"mount": APPROLE_MOUNT})
    assert list(listed.names) == [role_id]
    await roles("UnlockName", name=role_id, context={"mount": APPROLE_MOUNT})
    assert (await twin.login(role_id, secret.secret_id)).client_token
    # Ids of no role cost no storage.
    for _ in range(9):
        await refused(roles.login("nobody", "x"), Kind.INVALID, WRONG)
    assert list((await roles("ListLockedNames", context={"mount": APPROLE_MOUNT})).names) == []


async def test_uses_of_a_secret_id_are_exact_over_replicas(roles: Roles) -> None:
    role_id = await roles.write(secret_id_num_uses=5)
    secret = await roles.secret()
    twin = Roles(await roles.auth.twin())
    before = await roles.auth.stored("token")
    done = await count([(roles, twin)[n % 2].login(role_id, secret.secret_id) for n in range(20)])
    assert done == 5
    assert await roles.auth.stored("token") - before == 5
    await roles("UnlockName", name=role_id, context={"mount": APPROLE_MOUNT})
    await refused(roles.login(role_id, secret.secret_id), Kind.INVALID, WRONG)
    info = await roles("LookupSecretId", role_name="app", secret_id=secret.secret_id)
    assert not info.HasField("info")


async def test_a_failed_login_uses_nothing_and_makes_nothing(roles: Roles) -> None:
    role_id = await roles.write(secret_id_num_uses=1)
    secret = await roles.secret()
    tokens = await roles.auth.stored("token")
    roles.auth.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "away")
    await refused(roles.login(role_id, secret.secret_id), Kind.UNAVAILABLE)
    assert await roles.auth.stored("token") == tokens
    assert (await roles.login(role_id, secret.secret_id)).client_token


async def test_a_secret_id_ends_when_its_time_is_over(roles: Roles) -> None:
    role_id = await roles.write(secret_id_ttl=60)
    secret = await roles.secret()
    assert secret.secret_id_ttl == 60
    roles.auth.clock.advance(61)
    await refused(roles.login(role_id, secret.secret_id), Kind.INVALID, WRONG)
    await roles("TidySecretIds")
    await refused(roles("ListSecretIds", role_name="app"), Kind.NOT_FOUND)


async def test_secret_ids_whose_time_is_over_are_removed_by_themselves(roles: Roles) -> None:
    await roles.write()
    await roles.secret(ttl=60)
    lasting = await roles.secret()
    roles.auth.clock.advance(61)
    for each in roles.auth.service._swept:
        await each.sweep(roles.auth.clock.now())
    left = (await roles("ListSecretIds", role_name="app")).keys
    assert list(left) == [lasting.secret_id_accessor]


@pytest.mark.parametrize("verb", ["Destroy", "Delete"])
async def test_secret_ids_are_looked_up_and_destroyed(roles: Roles, verb: str) -> None:
    role_id = await roles.write()
    one, two = await roles.secret(ttl=60, num_uses=3), await roles.secret()
    accessors = list((await roles("ListSecretIds", role_name="app")).keys)
    assert sorted(accessors) == sorted([one.secret_id_accessor, two.secret_id_accessor])
    info = (await roles("LookupSecretId", role_name="app", secret_id=one.secret_id)).info
    assert (info.secret_id_num_uses, info.secret_id_ttl) == (3, 60)
    assert info.creation_time.startswith("2023-11-14T")
    by_accessor = await roles(
        "LookupSecretIdAccessor", role_name="app", secret_id_accessor=two.secret_id_accessor
    )
    assert by_accessor.info.expiration_time == "0001-01-01T00:00:00Z"
    await roles(f"{verb}SecretId", role_name="app", secret_id=one.secret_id)
    await roles(f"{verb}SecretId", role_name="app", secret_id=one.secret_id)
    await roles(
        f"{verb}SecretIdAccessor", role_name="app", secret_id_accessor=two.secret_id_accessor
    )
    await refused(
        roles(
            f"{verb}SecretIdAccessor", role_name="app", secret_id_accessor=two.secret_id_accessor
        ),
        Kind.NOT_FOUND,
    )
    for secret in (one, two):
        await refused(roles.login(role_id, secret.secret_id), Kind.INVALID, WRONG)


async def test_a_secret_id_may_be_chosen(roles: Roles) -> None:
    role_id = await roles.write()
    await roles("CreateCustomSecretId", role_name="app", secret_id="mine")
    await refused(
        roles("CreateCustomSecretId", role_name="app", secret_id="mine"), Kind.INVALID, "already"
    )
    assert (await roles.login(role_id, "mine")).client_token


async def test_addresses_bind_secret_ids(roles: Roles) -> None:
    role_id = await roles.write(secret_id_bound_cidrs=texts("10.0.0.0/8"))
    secret = await roles.secret(cidr_list=["10.1.0.0/16"], token_bound_cidrs=["10.2.0.0/16"])
    await refused(roles.login(role_id, secret.secret_id, address="10.3.0.1"), Kind.DENIED)
    made = await roles.login(role_id, secret.secret_id, address="10.1.0.1")
    assert await roles.auth.entry(made.client_token, "10.2.0.1")
    await refused(roles.auth.entry(made.client_token, "10.1.0.1"), Kind.DENIED)


async def test_tokens_are_bound_to_the_address_of_the_login(roles: Roles) -> None:
    role_id = await roles.write(settings={"token_strictly_bind_ip": True})
    secret = await roles.secret(token_bound_cidrs=["10.2.0.0/16"])
    made = await roles.login(role_id, secret.secret_id, address="10.2.0.1")
    assert await roles.auth.entry(made.client_token, "10.2.0.1")
    await refused(roles.auth.entry(made.client_token, "10.2.0.2"), Kind.DENIED)
    # The secret id says where tokens may be used: nowhere that this one could be.
    await refused(roles.login(role_id, secret.secret_id, address="10.3.0.1"), Kind.DENIED)


async def test_a_secret_id_is_bound_no_wider_than_its_role(roles: Roles) -> None:
    await roles.write(
        secret_id_bound_cidrs=texts("10.0.0.0/8", "::/64"),
        settings={"token_bound_cidrs": texts("10.2.0.0/16")},
    )
    await roles.secret(cidr_list=["10.1.0.0/16", "::1"], token_bound_cidrs=["10.2.3.4"])
    for field, wider in (
        ("cidr_list", "0.0.0.0/0"),
        ("cidr_list", "11.0.0.1"),
        ("cidr_list", "::/63"),
        ("token_bound_cidrs", "10.0.0.0/8"),
    ):
        fields: dict[str, Any] = {field: [wider]}
        await refused(roles.secret(**fields), Kind.INVALID, f"{field}: must lie within")


async def test_local_secret_ids_are_chosen_once(roles: Roles) -> None:
    await roles.write(local_secret_ids=True)
    await roles.write(local_secret_ids=True)
    await refused(roles.write(local_secret_ids=False), Kind.INVALID, "during role creation")
    for method in ("WriteRoleSetting", "DeleteRoleSetting"):
        await refused(roles(method, role_name="app", setting="local-secret-ids"), Kind.UNSUPPORTED)


@pytest.mark.parametrize("field", ["cidr_list", "token_bound_cidrs"])
async def test_what_is_no_address_range_binds_no_secret_id(roles: Roles, field: str) -> None:
    await roles.write()
    given: dict[str, Any] = {field: ["10.0.0.0/8", "office"]}
    await refused(roles.secret(**given), Kind.INVALID, field)


async def test_what_is_no_address_range_binds_no_role(roles: Roles) -> None:
    bad = texts("office")
    await refused(
        roles.write(secret_id_bound_cidrs=bad), Kind.INVALID, "secret_id_bound_cidrs: takes"
    )
    await refused(
        roles.write(settings={"token_bound_cidrs": bad}), Kind.INVALID, "token_bound_cidrs: takes"
    )


async def test_a_role_may_do_without_secret_ids(roles: Roles) -> None:
    await refused(roles.write(bind_secret_id=False), Kind.INVALID, "constraint")
    role_id = await roles.write(
        bind_secret_id=False, settings={"token_bound_cidrs": texts("127.0.0.0/8")}
    )
    assert (await roles.login(role_id)).client_token
    await refused(roles.secret(), Kind.INVALID, "bind_secret_id")


async def test_settings_are_changed_one_by_one(roles: Roles) -> None:
    await roles.write(settings={"token_policies": texts("app")})
    for setting, role in (
        ("secret-id-num-uses", pb.AppRole(secret_id_num_uses=4)),
        ("token-ttl", pb.AppRole(settings=login_pb2.TokenSettings(token_ttl=30))),
        ("policies", pb.AppRole(settings=login_pb2.TokenSettings(token_policies=texts("x")))),
    ):
        fields = {"role_name": "app", "setting": setting}
        await roles("WriteRoleSetting", role=role, **fields)
        assert (await roles("ReadRoleSetting", **fields)).role == role
        await roles("DeleteRoleSetting", **fields)
        assert (await roles("ReadRoleSetting", **fields)).role != role
    await refused(roles("ReadRoleSetting", role_name="app", setting="nonsense"), Kind.NOT_FOUND)
    await refused(
        roles("WriteRoleSetting", role_name="app", setting="token-ttl"), Kind.INVALID, "token_ttl"
    )


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("", {}),
        ('{"host": "a=b"}', {"host": "a=b"}),
        ("host=a", {"host": "a"}),
        (" host = a=b ,zone=, ", {"host": "a=b", "zone": ""}),
        ('{"host": 1}', None),
        ('{"host": "a=b"', None),
        ("host", None),
        ("=a", None),
    ],
)
async def test_metadata_of_a_secret_id_comes_as_an_object_or_in_pairs(
    roles: Roles, text: str, metadata: dict[str, str] | None
) -> None:
    await roles.write()
    if metadata is None:
        await refused(roles.secret(metadata=text), Kind.INVALID, "metadata")
        return
    secret = await roles.secret(metadata=text)
    found = await roles("LookupSecretId", role_name="app", secret_id=secret.secret_id)
    assert dict(found.info.metadata) == metadata


async def test_a_secret_id_lives_no_longer_than_its_mount_allows(roles: Roles) -> None:
    await roles.write(secret_id_ttl=100)
    short = {"mount": replace(APPROLE_MOUNT, max_lease_ttl=60)}
    made = await roles("CreateSecretId", role_name="app", context=short)
    assert made.secret.secret_id_ttl == 60
    await roles.write(secret_id_ttl=0)
    for_ever = await roles("CreateSecretId", role_name="app", context=short)
    assert for_ever.secret.secret_id_ttl == 0


async def test_what_was_written_by_its_old_name_is_shown_by_both(roles: Roles) -> None:
    async def shown(setting: str = "") -> tuple[int, int, list[str], list[str]]:
        role = (
            await roles("ReadRoleSetting", role_name="app", setting=setting)
            if setting
            else await roles("ReadRole", role_name="app")
        ).role
        policies = [list(role.settings.token_policies.values), list(role.policies.values)]
        return (role.settings.token_period, role.period, *policies)

    await roles.write(period=60, policies=texts("a"))
    assert await shown() == (60, 60, ["a"], ["a"])
    assert await shown("policies") == (0, 0, ["a"], ["a"])
    await roles.write(period=70, settings={"token_period": 80, "token_policies": texts("b")})
    assert await shown() == (80, 0, ["b"], [])
    assert await shown("period") == (80, 0, [], [])
    await roles("WriteRoleSetting", role_name="app", setting="period", role=pb.AppRole(period=90))
    assert await shown() == (90, 90, ["b"], [])
    await roles("DeleteRoleSetting", role_name="app", setting="period")
    assert await shown() == (0, 0, ["b"], [])


async def test_roles_are_listed_changed_and_removed(roles: Roles) -> None:
    role_id = await roles.write("App", secret_id_ttl=60)
    secret = await roles.secret("app")
    await roles("WriteRole", role_name="app", role_id="chosen", role=pb.AppRole())
    role = (await roles("ReadRole", role_name="app")).role
    assert (role.secret_id_ttl, role.bind_secret_id) == (60, True)
    await refused(roles.login(role_id, secret.secret_id), Kind.INVALID, WRONG)
    assert (await roles.login("chosen", secret.secret_id)).client_token
    await roles.write("b")
    await refused(roles("WriteRoleId", role_name="b", role_id="chosen"), Kind.INVALID, "in use")
    assert list((await roles("ListRoles")).keys) == ["app", "b"]
    await roles("DeleteRole", role_name="app")
    await refused(roles.login("chosen", secret.secret_id), Kind.INVALID, WRONG)
    await roles("WriteRole", role_name="app", role_id="chosen", role=pb.AppRole())
    await refused(roles.login("chosen", secret.secret_id), Kind.INVALID, WRONG)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": "x"}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"num_uses": 9}, "num_uses"),
        ({"num_uses": 0}, "num_uses"),
        ({"ttl": 999}, "ttl"),
        ({"ttl": -1}, "negative"),
    ],
)
async def test_bad_secret_ids_are_refused(
    roles: Roles, fields: dict[str, Any], message: str
) -> None:
    await roles.write(secret_id_num_uses=5, secret_id_ttl=60)
    await refused(roles.secret(**fields), Kind.INVALID, message)
    await refused(roles("ListSecretIds", role_name="app"), Kind.NOT_FOUND)


async def test_no_token_is_made_under_a_path_from_which_its_mount_has_moved(roles: Roles) -> None:
    role_id = await roles.write()
    secret = await roles.secret(num_uses=1)
    moved: dict[str, Any] = {"mount_uuid": APPROLE_MOUNT.uuid, "path": "auth/there/", "moves": 1}
    before_the_next("token", roles.auth, lambda: roles.auth("EndMovedTokens", **moved))
    login = roles.login(role_id, secret.secret_id)
    await refused(login, Kind.NOT_FOUND, "the mount was moved")
    assert await roles.auth.stored("token") == 1
    # Nothing of the secret id was used up.
    there = replace(APPROLE_MOUNT, path="auth/there/")
    assert (await roles.login(role_id, secret.secret_id, mount=there)).client_token


@pytest.mark.parametrize("late", ["write", "secret"])
async def test_what_is_made_while_its_mount_is_disabled_goes_with_it(
    roles: Roles, late: str
) -> None:
    await roles.write()
    disable = {"mount_uuid": APPROLE_MOUNT.uuid}
    before_the_next("approle", roles.auth, lambda: roles.auth("DropMount", None, **disable))
    call: Any = roles.write("late") if late == "write" else roles.secret()
    await refused(call, Kind.NOT_FOUND, "the mount was disabled")
    await refused(roles.write("later"), Kind.NOT_FOUND, "the mount was disabled")
    assert await roles.auth.stored("approle") == 0


async def test_a_login_and_the_end_of_its_failed_tries_are_one_change(roles: Roles) -> None:
    role_id = await roles.write()
    secret = await roles.secret(num_uses=1)
    await refused(roles.login(role_id, "wrong"), Kind.INVALID, WRONG)
    failed = (Plain("approle"), Plain(APPROLE_MOUNT.uuid), Plain("f"))
    assert await roles.auth.store.count(failed) == 1
    only_one_more_commit(roles.auth)
    assert (await roles.login(role_id, secret.secret_id)).client_token
    assert await roles.auth.store.count(failed) == 0


async def test_no_secret_id_is_left_of_a_role_that_goes_while_one_is_made(roles: Roles) -> None:
    """A later role of the same name would list it."""
    await roles.write()
    delete = partial(roles, "DeleteRole", role_name="app")
    before_the_next("approle", roles.auth, delete)
    await refused(roles.secret(), Kind.NOT_FOUND)
    assert await roles.auth.stored("approle") == 0
    # Nor does what was asked of one role come to another, which may allow less.
    await roles.write(secret_id_num_uses=0)

    async def replace_role() -> None:
        await delete()
        await roles.write(secret_id_num_uses=1)

    before_the_next("approle", roles.auth, replace_role)
    await refused(roles.secret(), Kind.NOT_FOUND)
    await refused(roles("ListSecretIds", role_name="app"), Kind.NOT_FOUND)
    # A change that leaves the role is no obstacle.
    before_the_next("approle", roles.auth, lambda: roles.write(secret_id_ttl=60))
    role_id = await roles.write()
    assert (await roles.login(role_id, (await roles.secret()).secret_id)).client_token


async def test_secret_ids_go_where_who_removed_their_role_died_before_them(roles: Roles) -> None:
    await roles.write()
    await roles.secret()
    clear = roles.auth.store.clear

    async def die(prefix: Path) -> None:
        raise ServiceError(Kind.UNAVAILABLE, "dead")

    roles.auth.store.clear = die  # type: ignore[method-assign]
    await refused(roles("DeleteRole", role_name="app"), Kind.UNAVAILABLE)
    roles.auth.store.clear = clear  # type: ignore[method-assign]
    assert await roles.auth.stored("approle") == 2
    await roles("TidySecretIds")
    assert await roles.auth.stored("approle") == 0


async def test_a_secret_id_made_anew_outlives_the_removal_of_the_one_before(roles: Roles) -> None:
    """Two replicas remove what has ended, and between them somebody registers the same text again."""
    role_id = await roles.write()
    custom = {"role_name": "app", "secret_id": "text"}
    await roles("CreateCustomSecretId", **custom, parameters=pb.SecretIdParameters(ttl=60))
    roles.auth.clock.advance(61)
    commit = roles.auth.store.commit
    late: list[Transaction] = []

    async def held(transaction: Transaction) -> int:
        late.append(transaction)
        return 0

    roles.auth.store.commit = held  # type: ignore[method-assign]
    await roles("TidySecretIds")
    roles.auth.store.commit = commit  # type: ignore[method-assign]
    await roles("TidySecretIds")
    await roles("CreateCustomSecretId", **custom)
    (removal,) = late
    with pytest.raises(ConflictError):
        await commit(removal)
    assert (await roles.login(role_id, "text")).client_token


async def test_a_disabled_mount_leaves_nothing(roles: Roles) -> None:
    role_id = await roles.write()
    made = await roles.login(role_id, (await roles.secret()).secret_id)
    await roles.auth("DropMount", mount_uuid=login_context().mount.uuid)  # type: ignore[union-attr]
    assert not await roles.auth.works(made.client_token)
    assert await roles.auth.stored("approle") == 0
    assert json.dumps(await roles.auth.stored("mount")) == "0"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("", "default"),
        ("default", "default"),
        ("default-service", "service"),
        ("service", "service"),
    ],
)
async def test_types_of_tokens_are_shown_by_the_names_that_clients_know(
    roles: Roles, asked: str, kept: str
) -> None:
    await roles.write(settings={"token_type": asked})
    assert (await roles("ReadRole", role_name="app")).role.settings.token_type == kept
    await roles.write(settings={"token_ttl": 60})
    assert (await roles("ReadRole", role_name="app")).role.settings.token_type == kept


async def test_batch_tokens_are_refused(roles: Roles) -> None:
    for asked in ("batch", "default-batch", "other"):
        await refused(roles.write(settings={"token_type": asked}), Kind.INVALID, "token_type")


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("method", ["DeleteRole", "DropMount"])
async def test_no_token_is_made_by_a_role_that_ended_while_it_was_checked(
    roles: Roles, bound: bool, method: str
) -> None:
    role_id = await roles.write(bind_secret_id=bound, secret_id_bound_cidrs=texts("127.0.0.0/8"))
    secret_id = (await roles.secret()).secret_id if bound else ""
    fields = {"role_name": "app"} if method == "DeleteRole" else {"mount_uuid": LOGIN_MOUNT.uuid}
    before_the_next("token", roles.auth, lambda: roles(method, **fields))
    await refused(roles.login(role_id, secret_id), Kind.INVALID, WRONG)
    assert await roles.auth.stored("token") == 1


async def test_an_id_that_a_role_got_while_it_was_removed_is_free(roles: Roles) -> None:
    await roles.write()
    commit, left = roles.auth.store.commit, ["chosen"]

    async def late(transaction: Transaction) -> int:
        if left and transaction.deletes:
            await roles("WriteRoleId", role_name="app", role_id=left.pop())
        return await commit(transaction)

    roles.auth.store.commit = late  # type: ignore[method-assign]
    await roles("DeleteRole", role_name="app")
    await roles.write("other")
    await roles("WriteRoleId", role_name="other", role_id="chosen")

"""How much of what tokens carry is taken: at the bound it is, beyond it an error names field and bound."""

import json
from typing import Any

import msgspec
import pytest
from tests.unit.auth.harness import ROOT, Auth, login_context, refused, texts

from strongroom.auth.v1 import approle_pb2, login_pb2, token_pb2
from strongroom_auth.settings import Settings
from strongroom_auth.userpass.users import User
from strongroom_runtime.errors import Kind
from strongroom_runtime.storage import Plain, Transaction


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


def names(count: int, length: int = 8) -> list[str]:
    return [f"{n:0{length}}" for n in range(count)]


def ranges(count: int) -> list[str]:
    return [f"10.{n >> 8}.{n & 255}.0/24" for n in range(count)]


@pytest.mark.parametrize(
    ("taken", "beyond", "message"),
    [
        (
            {"display_name": "ü" * 256},
            {"display_name": "ü" * 257},
            "display_name: may have at most 512 bytes",
        ),
        ({"policies": names(256)}, {"policies": names(257)}, "policies: at most 256 may be given"),
        (
            {"policies": ["p" * 512]},
            {"policies": ["p" * 513]},
            "policies: a name may have at most 512 characters",
        ),
        (
            {"meta": dict.fromkeys(names(64), "")},
            {"meta": dict.fromkeys(names(65), "")},
            "meta: at most 64 keys may be given",
        ),
        (
            {"meta": {"ü" * 64: "v"}},
            {"meta": {"ü" * 64 + "k": "v"}},
            "meta: a key may have at most 128 bytes",
        ),
        (
            {"meta": {"k": "ü" * 256}},
            {"meta": {"k": "ü" * 257}},
            "meta: a value may have at most 512 bytes",
        ),
        ({"id": "i" * 512}, {"id": "i" * 513}, "id: may have at most 512 characters"),
    ],
)
async def test_what_a_token_carries_is_bounded(
    auth: Auth, taken: dict[str, Any], beyond: dict[str, Any], message: str
) -> None:
    made = await auth.create(ttl=60, **taken)
    assert await auth.works(made.client_token)
    before = await auth.stored("token")
    await refused(auth.create(ttl=60, **beyond), Kind.INVALID, message)
    assert await auth.stored("token") == before


@pytest.mark.parametrize(
    "field",
    [
        "allowed_policies",
        "allowed_policies_glob",
        "disallowed_policies",
        "disallowed_policies_glob",
        "allowed_entity_aliases",
    ],
)
async def test_the_names_in_token_roles_are_bounded(auth: Auth, field: str) -> None:
    context = await auth.context(ROOT)

    async def write(values: list[str]) -> None:
        role = token_pb2.TokenRole(**{field: texts(*values)})  # type: ignore[arg-type]
        await auth("WriteTokenRole", context, role_name="r", role=role)

    await write(names(256))
    await refused(write(names(257)), Kind.INVALID, f"{field}: at most 256 may be given")
    await refused(write(["p" * 513]), Kind.INVALID, f"{field}: a name may have at most 512")


async def test_the_address_ranges_of_token_roles_are_bounded(auth: Auth) -> None:
    context = await auth.context(ROOT)

    async def write(values: list[str], field: str) -> None:
        role = token_pb2.TokenRole(**{field: texts(*values)})  # type: ignore[arg-type]
        await auth("WriteTokenRole", context, role_name="r", role=role)

    for field in ("token_bound_cidrs", "bound_cidrs"):
        await write(ranges(1_000), field)
        message = "token_bound_cidrs: at most 1000 address ranges may be given"
        await refused(write(ranges(1_001), field), Kind.INVALID, message)


async def test_settings_of_logins_are_bounded(auth: Auth) -> None:
    async def user(**given: Any) -> None:
        settings = login_pb2.TokenSettings(**given)
        await auth(
            "WriteUser", login_context(), username="ann", password="secret", settings=settings
        )

    async def role(**given: Any) -> None:
        message = approle_pb2.AppRole(settings=login_pb2.TokenSettings(**given))
        await auth("WriteRole", login_context(), role_name="app", role=message)

    for write in (user, role):
        await write(token_policies=texts(*names(256)), token_bound_cidrs=texts(*ranges(1_000)))
        for given, message in (
            ({"token_policies": texts(*names(257))}, "token_policies: at most 256"),
            ({"token_policies": texts("p" * 513)}, "token_policies: a name may have at most 512"),
            ({"token_bound_cidrs": texts(*ranges(1_001))}, "token_bound_cidrs: at most 1000"),
        ):
            await refused(write(**given), Kind.INVALID, message)


async def test_secret_ids_are_bounded(auth: Auth) -> None:
    context = login_context()

    async def role(values: list[str]) -> None:
        message = approle_pb2.AppRole(secret_id_bound_cidrs=texts(*values))
        await auth("WriteRole", context, role_name="app", role=message)

    async def secret(**given: Any) -> None:
        parameters = approle_pb2.SecretIdParameters(**given)
        await auth("CreateSecretId", context, role_name="app", parameters=parameters)

    await role(ranges(1_000))
    await refused(role(ranges(1_001)), Kind.INVALID, "secret_id_bound_cidrs: at most 1000")
    await secret(cidr_list=ranges(1_000), metadata=json.dumps(dict.fromkeys(names(64), "v" * 512)))
    for given, message in (
        ({"cidr_list": ranges(1_001)}, "cidr_list: at most 1000"),
        ({"token_bound_cidrs": ranges(1_001)}, "token_bound_cidrs: at most 1000"),
        ({"metadata": json.dumps(dict.fromkeys(names(65), ""))}, "metadata: at most 64 keys"),
        ({"metadata": json.dumps({"k": "v" * 513})}, "metadata: a value may have at most 512"),
    ):
        await refused(secret(**given), Kind.INVALID, message)


async def test_ids_that_are_chosen_are_bounded(auth: Auth) -> None:
    context, role = login_context(), approle_pb2.AppRole()
    await auth("WriteRole", context, role_name="app", role=role)
    await auth("WriteRoleId", context, role_name="app", role_id="r" * 512)
    for call in (
        auth("WriteRoleId", context, role_name="app", role_id="r" * 513),
        auth("WriteRole", context, role_name="late", role_id="r" * 513, role=role),
    ):
        await refused(call, Kind.INVALID, "role_id: may have at most 512 characters")
    assert (await auth("ReadRoleId", context, role_name="app")).role_id == "r" * 512
    await auth("CreateCustomSecretId", context, role_name="app", secret_id="s" * 4_096)
    call = auth("CreateCustomSecretId", context, role_name="app", secret_id="s" * 4_097)
    await refused(call, Kind.INVALID, "secret_id: may have at most 4096 characters")


async def test_what_stands_behind_the_path_of_a_token_is_bounded(auth: Auth) -> None:
    async def write(suffix: str) -> None:
        role = token_pb2.TokenRole(path_suffix=suffix)
        await auth("WriteTokenRole", await auth.context(ROOT), role_name="r", role=role)

    await write("s" * 512)
    await refused(write("s" * 513), Kind.INVALID, "path_suffix: may have at most 512 characters")


async def test_what_was_stored_before_there_were_bounds_still_logs_in(auth: Auth) -> None:
    await auth("WriteUser", login_context(), username="ann", password="secret")
    path = ("userpass", "login-mount", "u", "ann")
    entry = next(e for e in await auth.store.scan(()) if tuple(map(str, e.path)) == path)
    stored = msgspec.msgpack.decode(entry.value, type=User)
    many = Settings(policies=tuple(names(300)), cidrs=("127.0.0.0/8", *ranges(1_100)))
    kept = msgspec.msgpack.encode(msgspec.structs.replace(stored, settings=many))
    where = (Plain("userpass"), Plain("login-mount"), Plain("u"), "ann")
    await auth.store.commit(Transaction(puts={where: kept}))
    made = (await auth("LoginUser", login_context(), username="ann", password="secret")).auth
    assert len(made.policies) == 301
    # What a request does not give is not looked at, and a child may have what its parent has.
    settings = login_pb2.TokenSettings(token_ttl=60)
    await auth("WriteUser", login_context(), username="ann", settings=settings)
    assert len((await auth.create(made.client_token)).policies) == 301


NEW_NAMES = [
    "a b",
    "ä",
    ".a",
    "a.",
    "-a",
    "a-",
    "ann@example.org",
    "a+b",
    "a*b",
    "a/b",
    "a\\b",
    "a'b",
]


async def write_named(auth: Auth, kind: str, name: str) -> None:
    context = await auth.context(ROOT)
    if kind == "user":
        await auth("WriteUser", login_context(), username=name, password="secret")
    elif kind == "role":
        await auth("WriteRole", login_context(), role_name=name, role=approle_pb2.AppRole())
    else:
        await auth("WriteTokenRole", context, role_name=name, role=token_pb2.TokenRole())


@pytest.mark.parametrize("kind", ["user", "role", "token role"])
async def test_new_roles_and_users_have_names_that_vault_takes(auth: Auth, kind: str) -> None:
    for name in ("a", "_", "Ann-1.b_c", "n" * 512):
        await write_named(auth, kind, name)
    before = len(await auth.store.scan(()))
    for name in NEW_NAMES:
        await refused(write_named(auth, kind, name), Kind.INVALID, "name: takes letters, digits")
    await refused(write_named(auth, kind, "n" * 513), Kind.INVALID, "name: may have at most 512")
    await refused(write_named(auth, kind, ""), Kind.INVALID, "name: must not be empty")
    assert len(await auth.store.scan(())) == before


async def test_a_user_with_another_name_is_used_as_before(auth: Auth) -> None:
    await auth("WriteUser", login_context(), username="ann", password="secret")
    entry = next(e for e in await auth.store.scan(()) if str(e.path[-1]) == "ann")
    name = "ann@example.org"
    where = (Plain("userpass"), Plain("login-mount"), Plain("u"), name)
    await auth.store.commit(Transaction(puts={where: entry.value}))
    assert (await auth("LoginUser", login_context(), username=name, password="secret")).auth
    settings = login_pb2.TokenSettings(token_ttl=60)
    await auth("WriteUser", login_context(), username=name, settings=settings)
    await auth("DeleteUser", login_context(), username=name)

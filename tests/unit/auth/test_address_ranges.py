"""From where roles, secret ids and tokens of AppRole may be used, and those of userpass."""

from typing import Any

import pytest
from tests.unit.auth.harness import Auth, login_context, refused, texts

from strongroom.auth.v1 import approle_pb2, login_pb2
from strongroom_runtime.errors import Kind

# Ranges, an address within one of them, and addresses outside of all.
RANGES = [
    (["10.0.0.0/8"], "10.1.2.3", ["11.0.0.1", "::1", "::10.1.2.3", "", "office"]),
    (["10.1.2.3"], "10.1.2.3", ["10.1.2.4"]),
    (["2001:db8::/32", "192.0.2.0/24"], "192.0.2.9", ["2001:db9::1", "192.0.3.1"]),
    (["2001:db8::/32", "192.0.2.0/24"], "2001:db8::9", ["::1"]),
    (["10.0.0.0/8"], "::ffff:10.1.2.3", ["::ffff:11.0.0.1"]),
    (["::ffff:10.0.0.0/104"], "10.1.2.3", ["11.0.0.1"]),
    (["0.0.0.0/0"], "198.51.100.1", ["2001:db8::1"]),
    (["fe80::/64"], "fe80::1%eth0", ["fe80:0:0:1::1%eth0"]),
    (["::/0"], "2001:db8::1", ["10.0.0.1", "::ffff:10.0.0.1"]),
]
BAD = ["office", "10.0.0.0/33", "2001:db8::/129", "10.0.0", "127.0.0.1:80"]


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


async def role(auth: Auth, **fields: Any) -> str:
    settings = login_pb2.TokenSettings(**fields.pop("settings", {}))
    message = approle_pb2.AppRole(settings=settings, **fields)
    await auth("WriteRole", login_context(), role_name="app", role=message)
    return str((await auth("ReadRoleId", login_context(), role_name="app")).role_id)


async def secret(auth: Auth, **fields: Any) -> str:
    parameters = approle_pb2.SecretIdParameters(**fields)
    answer = await auth("CreateSecretId", login_context(), role_name="app", parameters=parameters)
    return str(answer.secret.secret_id)


async def login(auth: Auth, role_id: str, secret_id: str, address: str) -> str:
    answer = await auth(
        "LoginAppRole", login_context(address), role_id=role_id, secret_id=secret_id
    )
    return str(answer.auth.client_token)


@pytest.mark.parametrize(("ranges", "inside", "outside"), RANGES)
async def test_a_role_is_used_from_its_ranges_alone(
    auth: Auth, ranges: list[str], inside: str, outside: list[str]
) -> None:
    role_id = await role(auth, secret_id_bound_cidrs=texts(*ranges), secret_id_num_uses=1)
    secret_id = await secret(auth)
    for address in outside:
        await refused(login(auth, role_id, secret_id, address), Kind.DENIED)
    # None of those used the secret id up; from within, its one use is left.
    assert await login(auth, role_id, secret_id, inside)


@pytest.mark.parametrize(("ranges", "inside", "outside"), RANGES)
async def test_a_secret_id_is_used_from_its_ranges_alone(
    auth: Auth, ranges: list[str], inside: str, outside: list[str]
) -> None:
    role_id = await role(auth)
    secret_id = await secret(auth, cidr_list=ranges, num_uses=1)
    for address in outside:
        await refused(login(auth, role_id, secret_id, address), Kind.DENIED)
    assert await login(auth, role_id, secret_id, inside)


@pytest.mark.parametrize("given_by", ["role", "secret id"])
@pytest.mark.parametrize(("ranges", "inside", "outside"), RANGES)
async def test_a_token_is_used_from_its_ranges_alone(
    auth: Auth, ranges: list[str], inside: str, outside: list[str], given_by: str
) -> None:
    if given_by == "role":
        role_id = await role(auth, settings={"token_bound_cidrs": texts(*ranges)})
        secret_id = await secret(auth)
    else:
        role_id = await role(auth)
        secret_id = await secret(auth, token_bound_cidrs=ranges)
    token = await login(auth, role_id, secret_id, inside)
    assert await auth.entry(token, inside)
    for address in outside:
        await refused(auth.entry(token, address), Kind.DENIED)


@pytest.mark.parametrize(("ranges", "inside", "outside"), RANGES)
async def test_a_user_logs_in_from_its_ranges_alone(
    auth: Auth, ranges: list[str], inside: str, outside: list[str]
) -> None:
    settings = login_pb2.TokenSettings(token_bound_cidrs=texts(*ranges))
    await auth("WriteUser", login_context(), username="ann", password="pw", settings=settings)
    for address in outside:
        await refused(
            auth("LoginUser", login_context(address), username="ann", password="pw"), Kind.DENIED
        )
    made = await auth("LoginUser", login_context(inside), username="ann", password="pw")
    assert await auth.entry(made.auth.client_token, inside)


async def test_ranges_within_those_of_the_role_may_be_written_in_either_way(auth: Auth) -> None:
    await role(auth, secret_id_bound_cidrs=texts("10.0.0.0/8", "2001:db8::/32"))
    await secret(auth, cidr_list=["::ffff:10.1.0.0/112", "2001:db8:1::/48"])
    for wider in ("::ffff:0.0.0.0/96", "::/0"):
        await refused(secret(auth, cidr_list=[wider]), Kind.INVALID, "cidr_list: must lie within")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        *((each, "takes addresses or ranges") for each in BAD),
        ("fe80::1%eth0", "an address range has no zone"),
        ("fe80::%eth0/64", "an address range has no zone"),
    ],
)
async def test_what_is_no_range_is_refused_and_nothing_changed(
    auth: Auth, bad: str, said: str
) -> None:
    ranges = texts("10.0.0.0/8", bad)
    kept = {"secret_id_bound_cidrs": texts("192.0.2.0/24")}
    await role(auth, **kept, settings={"token_bound_cidrs": texts("192.0.2.0/25")})
    for field, write in (
        ("secret_id_bound_cidrs", role(auth, secret_id_bound_cidrs=ranges)),
        ("token_bound_cidrs", role(auth, settings={"token_bound_cidrs": ranges})),
        ("cidr_list", secret(auth, cidr_list=ranges.values)),
        ("token_bound_cidrs", secret(auth, token_bound_cidrs=ranges.values)),
    ):
        await refused(write, Kind.INVALID, f"{field}: {said}")
    shown = (await auth("ReadRole", login_context(), role_name="app")).role
    assert list(shown.secret_id_bound_cidrs.values) == ["192.0.2.0/24"]
    assert list(shown.settings.token_bound_cidrs.values) == ["192.0.2.0/25"]

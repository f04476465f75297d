"""Passwords of users of a real PostgreSQL, changed through the whole platform and whatever dies."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from strongroom.dbcreds.v1 import connection_pb2, static_pb2, static_pb2_grpc
from strongroom_dbcreds.service import DbcredsService
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.server import EmbeddedEtcd
from tests.integration.databases import Postgres
from tests.integration.mortal_dbcreds import Die
from tests.integration.platforms import ROOT, Platform, until
from tests.integration.test_lease_faults import call, one_that_survives

FIRST = "first-Password-1"
PERIOD = {"rotation_period": "1h"}


@pytest.fixture
def mount(platform: Platform, database: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """A mount with a connection as the user `boss`, and the user `app` in its database."""
    name = "static-" + request.node.originalname.removeprefix("test_").replace("_", "-")
    for user, rights in (("boss", "SUPERUSER"), ("app", "")):
        database.sql(f"DROP ROLE IF EXISTS {user}")
        database.sql(f"CREATE ROLE {user} LOGIN {rights} PASSWORD '{FIRST}'")
    platform.http("POST", f"sys/mounts/{name}", json={"type": "database"})
    write(
        platform,
        f"{name}/config/pg",
        plugin_name="postgresql-database-plugin",
        connection_url=database.url,
        username="boss",
        password=FIRST,
        allowed_roles="*",
    )
    yield name
    platform.http("DELETE", f"sys/mounts/{name}")


def write(platform: Platform, path: str, **body: Any) -> None:
    done = platform.http("POST", path, json=body)
    assert done.status_code == 204, done.text


def known(platform: Platform, mount: str) -> Any:
    answer = platform.http("GET", f"{mount}/static-creds/app")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_bao(platform: Platform, database: Postgres, mount: str) -> None:
    platform.bao(
        "write", f"{mount}/static-roles/app", "db_name=pg", "username=app",
        "rotation_schedule=0 0 * * SAT", "rotation_window=1h",
    )  # fmt: skip
    made = json.loads(platform.bao("read", "-format=json", f"{mount}/static-creds/app"))["data"]
    assert database.logs_in("app", made["password"]) and not database.logs_in("app", FIRST)
    assert (made["rotation_schedule"], made["rotation_window"]) == ("0 0 * * SAT", 3600)
    assert 0 < made["ttl"] <= 7 * 86_400 and made["last_vault_rotation"]
    platform.bao("write", "-f", f"{mount}/rotate-role/app")
    assert not database.logs_in("app", made["password"])
    assert database.logs_in("app", known(platform, mount)["password"])
    platform.bao("write", "-f", f"{mount}/rotate-root/pg")
    assert not database.logs_in("boss", FIRST)
    platform.bao("write", "-f", f"{mount}/rotate-role/app")
    assert database.logs_in("app", known(platform, mount)["password"])
    assert "app" in platform.bao("list", f"{mount}/static-roles")
    shown = platform.bao("read", f"{mount}/static-roles/app")
    assert known(platform, mount)["password"] not in shown
    platform.bao("delete", f"{mount}/static-roles/app")


def test_hvac(platform: Platform, database: Postgres, mount: str) -> None:
    engine = platform.hvac().secrets.database
    engine.create_static_role("app", "pg", "app", [], 3600, mount_point=mount)
    assert engine.read_static_role("app", mount_point=mount)["data"]["rotation_period"] == 3600
    made = engine.get_static_credentials("app", mount_point=mount)["data"]
    assert database.logs_in(made["username"], made["password"])
    engine.rotate_static_role_credentials("app", mount_point=mount)
    again = engine.get_static_credentials("app", mount_point=mount)["data"]
    assert again["password"] != made["password"] and database.logs_in("app", again["password"])
    engine.rotate_root_credentials("pg", mount_point=mount)
    assert not database.logs_in("boss", FIRST)
    assert engine.list_static_roles(mount_point=mount)["data"]["keys"] == ["app"]
    engine.delete_static_role("app", mount_point=mount)


def test_grpc(platform: Platform, database: Postgres, mount: str) -> None:
    with platform.channel() as channel:
        stub: Any = static_pb2_grpc.StaticRoleServiceStub(channel)  # type: ignore[arg-type]
        token = (("x-vault-token", ROOT),)
        role = static_pb2.WriteStaticRoleRequest(
            mount=mount, name="app", db_name="pg", username="app", rotation_period=60
        )
        stub.WriteStaticRole(role, metadata=token)
        wanted = static_pb2.ReadStaticCredentialsRequest(mount=mount, name="app")
        made = stub.ReadStaticCredentials(wanted, metadata=token)
        assert database.logs_in("app", made.password) and 50 < made.ttl <= 60


def test_passwords_change_by_themselves(platform: Platform, database: Postgres, mount: str) -> None:
    write(platform, f"{mount}/static-roles/app", db_name="pg", username="app", rotation_period=5)
    first = known(platform, mount)["password"]
    until(lambda: known(platform, mount)["password"] != first)
    until(lambda: database.logs_in("app", known(platform, mount)["password"]))


def test_users_that_manage_themselves(platform: Platform, database: Postgres, mount: str) -> None:
    write(
        platform, f"{mount}/config/own", plugin_name="postgresql-database-plugin",
        connection_url=database.url, allowed_roles="*", verify_connection=False,
        password_authentication="scram-sha-256",
    )  # fmt: skip
    body = {"db_name": "own", "username": "app", "self_managed_password": FIRST} | PERIOD
    write(platform, f"{mount}/static-roles/app", **body)
    made = known(platform, mount)["password"]
    assert made != FIRST and database.logs_in("app", made)
    assert platform.http("GET", f"{mount}/static-roles/app").json()["data"]["self_managed"]


def test_policies_of_passwords(platform: Platform, database: Postgres, mount: str) -> None:
    policy = 'length = 24\nrule "charset" { charset = "abc\'\\"$" min-chars = 1 }'
    platform.bao("write", "sys/policies/password/odd", f"policy={policy}")
    client = platform.hvac()
    assert "odd" in client.list("sys/policies/password")["data"]["keys"]
    generated = client.read("sys/policies/password/odd/generate")["data"]["password"]
    assert len(generated) == 24 and set(generated) <= set("abc'\"$")
    config = {"password_policy": "odd"}
    write(
        platform, f"{mount}/static-roles/app", db_name="pg", username="app",
        credential_config=config, **PERIOD,
    )  # fmt: skip
    made = known(platform, mount)["password"]
    assert len(made) == 24 and database.sql(
        "SELECT 1", "app", made.replace("$", "%24").replace('"', "%22")
    ) == ["1"]
    refused = platform.http("POST", "sys/policies/password/bad", json={"policy": "length = 1"})
    assert refused.status_code == 400 and "length" in refused.text
    platform.http("DELETE", "sys/policies/password/odd")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"username": "nobody"}, "no such user"),
        ({"rotation_period": "1s"}, "rotation_period"),
        ({"db_name": "none"}, "db_name"),
        ({"rotation_statements": ["ALTER ROLE \"{{name}}\" PASSWORT '{{password}}'"]}, "unrecognized role option"),
        ({"rotation_statements": ["ALTER ROLE \"{{name}}\" PASSWORD '{{what}}'"]}, "placeholder"),
    ],
)  # fmt: skip
def test_bad_input_is_named(
    platform: Platform, database: Postgres, mount: str, body: dict[str, Any], message: str
) -> None:
    role = {"db_name": "pg", "username": "app"} | PERIOD | body
    answer = platform.http("POST", f"{mount}/static-roles/app", json=role)
    assert answer.status_code == 400 and message in answer.text, answer.text
    assert platform.http("GET", f"{mount}/static-roles/app").status_code == 404
    assert database.logs_in("app", FIRST)


@pytest_asyncio.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    yield server
    await server.stop()


async def until_rotated(service: DbcredsService) -> None:
    """Rotates both users, once the claim of whoever died has run out."""
    root, role = (
        static_pb2.RotateRootRequest(name="pg"),
        static_pb2.RotateRoleRequest(name="static"),
    )
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(ServiceError):
                await call(service, "StaticRoleService", "RotateRoot", root)
                await call(service, "StaticRoleService", "RotateRole", role)
                return
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("which", ["role", "root"])
async def test_kill_at_every_step_ends_with_a_password_that_is_known(
    etcd: EmbeddedEtcd, database: Postgres, die: Die, which: str
) -> None:
    for user, rights in (("boss", "SUPERUSER"), ("app", "")):
        database.sql(f"DROP ROLE IF EXISTS {user}")
        database.sql(f"CREATE ROLE {user} LOGIN {rights} PASSWORD '{FIRST}'")
    client, keys, survivor = await one_that_survives(etcd, database)
    details = connection_pb2.ConnectionDetails(username="boss", password=FIRST)
    connection = connection_pb2.WriteConnectionRequest(name="pg", details=details)
    await call(survivor, "ConnectionService", "WriteConnection", connection)
    role = static_pb2.WriteStaticRoleRequest(
        name="static", db_name="pg", username="app", rotation_period=86_400
    )
    await call(survivor, "StaticRoleService", "WriteStaticRole", role)
    await survivor.start()
    answers = []
    for steps in range(8):
        told = {"etcd": etcd.config.endpoints[0], "keys": keys, "steps": steps, "call": which}
        answers.append(await asyncio.to_thread(die, told))
        # Another replica finds out which password the database has; with it both users are served again.
        await until_rotated(survivor)
        wanted = static_pb2.ReadStaticCredentialsRequest(name="static")
        made = await call(survivor, "StaticRoleService", "ReadStaticCredentials", wanted)
        assert database.logs_in("app", made.password), steps
    assert answers == [False] * 6 + [True] * 2
    await survivor.stop()
    await client.close()

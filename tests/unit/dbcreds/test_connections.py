"""Connections and roles as they are written and read, and the drivers that are open for them."""

from typing import Any

import msgspec
import pytest_asyncio
from tests.unit.dbcreds.harness import CONTEXT, Dbcreds, refused, texts

from strongroom.dbcreds.v1 import connection_pb2 as pb
from strongroom_runtime.errors import Kind


@pytest_asyncio.fixture
async def dbcreds() -> Dbcreds:
    return await Dbcreds().furnish()


async def test_secrets_of_a_connection_are_never_shown(dbcreds: Dbcreds) -> None:
    details = pb.ConnectionDetails(
        connection_url="db://{{username}}", username="admin", password="hunter2", private_key="k"
    )
    await dbcreds("WriteConnection", name="db", details=details)
    shown = await dbcreds("ReadConnection", name="db")
    assert shown.connection_details.connection_url == "db://{{username}}"
    assert shown.connection_details.username == "admin"
    assert "hunter2" not in str(shown)
    assert not shown.connection_details.HasField("private_key")
    await dbcreds("WriteConnection", name="db", allowed_roles=texts("a", "b"))
    shown = await dbcreds("ReadConnection", name="db")
    assert list(shown.allowed_roles) == ["a", "b"]
    assert shown.connection_details.username == "admin"  # what is not given stays


async def test_nothing_is_written_where_the_database_cannot_be_logged_in_to(
    dbcreds: Dbcreds,
) -> None:
    dbcreds.database.down = True
    await refused(dbcreds("WriteConnection", name="x", plugin_name="fake"), Kind.INVALID, "refused")
    await refused(dbcreds("ReadConnection", name="x"), Kind.NOT_FOUND)
    await dbcreds("WriteConnection", name="x", plugin_name="fake", verify_connection=False)
    assert list((await dbcreds("ListConnections")).keys) == ["db", "x"]
    await dbcreds("DeleteConnection", name="x")
    await dbcreds("DeleteConnection", name="x")


async def test_what_is_too_long_is_named_before_anything_is_done(dbcreds: Dbcreds) -> None:
    """Else a transaction that is too large would say so, and of which field nobody would know."""
    opened, long = dbcreds.database.opened, "x" * (32 << 10)
    many = texts(*[long] * 3)
    role: dict[str, Any] = {"name": "new", "db_name": "db"}
    for method, field, fields in (
        ("WriteConnection", "tls_ca", {"details": pb.ConnectionDetails(tls_ca=long + "x")}),
        ("WriteConnection", "allowed_roles", {"allowed_roles": many}),
        ("WriteConnection", "root_rotation_statements", {"root_rotation_statements": many}),
        ("WriteRole", "creation_statements", {"creation_statements": many}),
        ("WriteRole", "credential_config", {"credential_config": {"a": long, "b": long}}),
        ("WriteStaticRole", "rotation_statements", {"username": "u", "rotation_statements": many}),
        ("WriteStaticRole", "username", {"username": long + "x"}),
    ):
        connection: dict[str, Any] = {"name": "new", "plugin_name": "fake"}
        given = connection if method == "WriteConnection" else role
        await refused(
            dbcreds(method, **given, **fields), Kind.INVALID, f"{field}: may have at most"
        )
    assert dbcreds.database.opened == opened
    assert list((await dbcreds("ListConnections")).keys) == ["db"]
    # As long as all may be, it is written.
    statements: dict[str, Any] = {
        f"{kind}_statements": texts("\U0001f511" * (64 << 10))
        for kind in ("creation", "revocation", "rollback", "renew")
    }
    await dbcreds("WriteRole", **role, **statements)


async def test_one_driver_is_open_for_a_connection_until_it_changes(dbcreds: Dbcreds) -> None:
    opened, closed = dbcreds.database.opened, dbcreds.database.closed
    await dbcreds.creds()
    await dbcreds.creds()
    assert (dbcreds.database.opened - opened, dbcreds.database.closed - closed) == (1, 0)
    await dbcreds("ResetConnection", name="db")
    await dbcreds.creds()
    assert (dbcreds.database.opened - opened, dbcreds.database.closed - closed) == (2, 1)
    await dbcreds("DeleteConnection", name="db")
    await refused(dbcreds.creds(), Kind.INVALID, "db_name")
    assert dbcreds.database.opened == dbcreds.database.closed


async def test_what_another_replica_has_open_is_closed_too(dbcreds: Dbcreds) -> None:
    twin = await dbcreds.twin().prepare()
    await dbcreds.creds()
    await twin.creds()
    await dbcreds("DeleteConnection", name="db")
    assert dbcreds.database.opened - dbcreds.database.closed == 1
    await twin.service._connections.tend()
    assert dbcreds.database.opened == dbcreds.database.closed


async def test_a_driver_that_is_in_use_is_closed_when_it_is_not(dbcreds: Dbcreds) -> None:
    opened = dbcreds.database.opened
    connections = dbcreds.service._connections
    async with connections.use("mount-1", "db") as first:
        await dbcreds("ResetConnection", name="db")
        async with connections.use("mount-1", "db") as second:
            assert first is not second
            await connections.tend()
            assert dbcreds.database.opened - opened == 2
            closed = dbcreds.database.closed
    await connections.tend()
    assert dbcreds.database.closed == closed + 1
    async with connections.use("mount-1", "db") as third:
        assert third is second


async def test_create_and_update_are_rights_of_their_own(dbcreds: Dbcreds) -> None:
    creator = msgspec.structs.replace(CONTEXT, may_update=False)
    updater = msgspec.structs.replace(CONTEXT, may_create=False)
    for method, fields in (
        ("WriteConnection", {"name": "n", "plugin_name": "fake"}),
        ("WriteRole", {"name": "n", "db_name": "db"}),
    ):
        await refused(dbcreds(method, updater, **fields), Kind.DENIED)
        await dbcreds(method, creator, **fields)
        await refused(dbcreds(method, creator, **fields), Kind.DENIED)
        await dbcreds(method, updater, **fields)


async def test_a_role_keeps_what_is_not_given(dbcreds: Dbcreds) -> None:
    await dbcreds.role("r", creation_statements=texts("CREATE a, b;"), max_ttl=7200)
    await dbcreds("WriteRole", name="r", default_ttl=60)
    shown = await dbcreds("ReadRole", name="r")
    assert (shown.db_name, shown.default_ttl, shown.max_ttl) == ("db", 60, 7200)
    assert list(shown.creation_statements) == ["CREATE a, b;"]
    assert list((await dbcreds("ListRoles")).keys) == ["app", "r"]
    await dbcreds("DeleteRole", name="r")
    await refused(dbcreds("ReadRole", name="r"), Kind.NOT_FOUND)
    for span in ("default_ttl", "revocation_retry_interval", "irrevocable_after"):
        await refused(dbcreds.role("r", **{span: -1}), Kind.INVALID, span)


async def test_a_ttl_beyond_the_mounts_is_said(dbcreds: Dbcreds) -> None:
    answer = await dbcreds("WriteRole", name="r", db_name="db", max_ttl=9_999_999)
    assert "max_ttl is longer" in answer.warnings[0]

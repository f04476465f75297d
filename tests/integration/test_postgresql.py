"""The driver for PostgreSQL against a real server."""

import datetime
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from strongroom_dbcreds.drivers.base import NewUser, Password
from strongroom_dbcreds.drivers.postgresql import PostgresDriver
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError
from tests.containers.certificates import authority, issued
from tests.integration.databases import ADMIN, PASSWORD, Postgres, is_cut_off
from tests.integration.platforms import until
from tests.integration.tls_front import tls_front

CREATE = ("CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';",)
LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)


def connection(database: Postgres, **details: Any) -> Connection:
    known = {"connection_url": database.url, "username": ADMIN, "password": PASSWORD}
    return Connection("postgresql-database-plugin", known | details)


@pytest_asyncio.fixture
async def driver(database: Postgres) -> AsyncIterator[PostgresDriver]:
    driver = PostgresDriver(connection(database))
    yield driver
    await driver.close()


@pytest.mark.parametrize(
    "name", ["v-app-1", 'a"; DROP TABLE kept; --', "it's", "ü-ñ", "a\\b", "{{password}}"]
)
async def test_users_of_any_name_come_and_go(
    database: Postgres, driver: PostgresDriver, name: str
) -> None:
    database.sql("CREATE TABLE IF NOT EXISTS kept (x int)")
    password = "p'\"\\; --$1%s"
    await driver.create_user(CREATE, NewUser(name, Password(password), LATER))
    assert name in database.users()
    assert database.sql("SELECT count(*) FROM kept") == ["0"]
    await driver.renew_user((), name, LATER + datetime.timedelta(hours=5))
    await driver.change_credential((), name, Password(password + "2"))
    for _ in range(2):
        await driver.drop_user((), name)
    assert name not in database.users()
    assert database.sql("SELECT count(*) FROM kept") == ["0"]


async def test_a_creation_that_fails_half_way_leaves_nothing(
    database: Postgres, driver: PostgresDriver
) -> None:
    broken = (*CREATE, 'GRANT SELECT ON none TO "{{name}}"')
    with pytest.raises(ServiceError) as caught:
        await driver.create_user(broken, NewUser("half", Password("secret-password"), LATER))
    assert caught.value.kind is Kind.INVALID
    assert 'relation "none" does not exist' in caught.value.message
    assert "half" not in database.users()


async def test_what_a_user_owns_is_not_lost_and_its_sessions_end(
    database: Postgres, driver: PostgresDriver
) -> None:
    grant = (*CREATE, 'GRANT ALL ON SCHEMA public TO "{{name}}"')
    await driver.create_user(grant, NewUser("owner", Password("pw"), LATER))
    with psycopg.connect(database.dsn("owner", "pw"), autocommit=True) as session:
        session.execute("CREATE TABLE owned (x int); INSERT INTO owned VALUES (1)")
        await driver.drop_user((), "owner")
        until(lambda: is_cut_off(session))
    assert database.sql("SELECT x FROM owned") == ["1"]
    database.sql("DROP TABLE owned")


async def test_sessions_end_even_if_an_earlier_attempt_ended_in_the_middle(
    database: Postgres, driver: PostgresDriver
) -> None:
    await driver.create_user(CREATE, NewUser("half-gone", Password("pw"), LATER))
    with psycopg.connect(database.dsn("half-gone", "pw"), autocommit=True) as session:
        database.sql('DROP ROLE "half-gone"')
        assert session.execute("SELECT 1").fetchone() == (1,)
        await driver.drop_user((), "half-gone")
        until(lambda: is_cut_off(session))


async def test_an_admin_that_is_not_superuser_can_do_it(database: Postgres) -> None:
    database.sql("CREATE ROLE lesser LOGIN CREATEROLE PASSWORD 'pw'")
    database.sql("CREATE TABLE shared (x int); GRANT ALL ON shared TO lesser WITH GRANT OPTION")
    driver = PostgresDriver(connection(database, username="lesser", password="pw"))
    grant = (*CREATE, 'GRANT SELECT ON shared TO "{{name}}"')
    await driver.create_user(grant, NewUser("small", Password("pw"), LATER))
    with psycopg.connect(database.dsn("small", "pw"), autocommit=True) as session:
        await driver.drop_user((), "small")
        assert "small" not in database.users()
        until(lambda: is_cut_off(session))
    await driver.close()
    database.sql("DROP TABLE shared; DROP ROLE lesser")


async def test_scram_verifiers_are_made_here(database: Postgres) -> None:
    driver = PostgresDriver(connection(database, password_authentication="scram-sha-256"))
    await driver.create_user(CREATE, NewUser("scram", Password("pw"), LATER))
    assert database.logs_in("scram", "pw")
    await driver.drop_user((), "scram")
    await driver.close()


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ({"password": "wrong-Password-9"}, Kind.UNAVAILABLE),
        ({"connection_url": "postgresql://127.0.0.1:1/postgres"}, Kind.UNAVAILABLE),
    ],
)
async def test_errors_say_what_the_database_says_and_no_password(
    database: Postgres, details: dict[str, Any], kind: Kind
) -> None:
    driver = PostgresDriver(connection(database, **details))
    with pytest.raises(ServiceError) as caught:
        await driver.verify()
    assert caught.value.kind is kind
    assert caught.value.message
    assert "Password" not in caught.value.message
    await driver.close()


@pytest.mark.parametrize(
    "details",
    [{"connection_url": ""}, {"connection_url": "no url"}, {"password_authentication": "md5"}],
)
def test_details_that_are_wrong_are_named(database: Postgres, details: dict[str, Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        PostgresDriver(connection(database, **details))
    assert caught.value.kind is Kind.INVALID
    assert next(iter(details)) in caught.value.message


async def test_a_database_that_was_restarted_is_found_again(
    driver: PostgresDriver, database: Postgres
) -> None:
    await driver.verify()
    database.stop()
    try:
        with pytest.raises(ServiceError) as caught:
            await driver.verify()
        assert caught.value.kind is Kind.UNAVAILABLE
    finally:
        database.start()
    await driver.verify()


async def test_schemas_of_hostile_names_do_no_harm(
    database: Postgres, driver: PostgresDriver
) -> None:
    database.sql("CREATE TABLE IF NOT EXISTS kept (x int)")
    schema = '"a""; drop table kept; --"'
    database.sql(f"CREATE SCHEMA {schema}")
    database.sql(f"CREATE TABLE {schema}.t (x int)")
    grant = (
        *CREATE,
        f'GRANT USAGE ON SCHEMA {schema} TO "{{{{name}}}}"; GRANT SELECT ON {schema}.t TO "{{{{name}}}}"',
    )
    await driver.create_user(grant, NewUser("reader", Password("pw"), LATER))
    assert database.sql(f"SELECT count(*) FROM {schema}.t", "reader", "pw") == ["0"]
    await driver.drop_user((), "reader")
    assert "reader" not in database.users()
    assert database.sql("SELECT count(*) FROM kept") == ["0"]
    database.sql(f"DROP SCHEMA {schema} CASCADE")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "ü" * 32])
async def test_names_that_the_database_would_change_are_refused(
    database: Postgres, driver: PostgresDriver, name: str
) -> None:
    before = database.users()
    with pytest.raises(ServiceError) as caught:
        await driver.create_user(CREATE, NewUser(name, Password("secret-password"), LATER))
    assert caught.value.kind is Kind.INVALID
    assert "name" in caught.value.message and "secret-password" not in caught.value.message
    assert database.users() == before


async def test_a_database_that_hangs_does_not_hang_its_callers(
    database: Postgres, driver: PostgresDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.verify()
    monkeypatch.setattr("strongroom_dbcreds.drivers.pool.CALL_SECONDS", 0.5)
    monkeypatch.setattr("strongroom_dbcreds.drivers.pool.CONNECT_SECONDS", 0.5)
    database.freeze()
    try:
        with pytest.raises(ServiceError) as caught:
            await driver.verify()
    finally:
        database.thaw()
    assert caught.value.kind is Kind.UNAVAILABLE
    monkeypatch.undo()
    await driver.verify()


async def test_the_certificate_of_the_server_is_checked_with_its_name(database: Postgres) -> None:
    ca, others = authority("ours"), authority("others")
    for pair, details, refusal in (
        (issued(ca, "server", "127.0.0.1"), {"tls_ca": ca.certificate}, ""),
        (issued(ca, "server", "127.0.0.1"), {"tls_ca": others.certificate}, "verify failed"),
        (issued(ca, "server", "127.0.0.2"), {"tls_ca": ca.certificate}, "127.0.0.1"),
    ):
        async with tls_front(database.port, pair) as port:
            for mode in ("", "?sslmode=verify-full"):
                url = database.url.replace(str(database.port), str(port)) + mode
                driver = PostgresDriver(connection(database, connection_url=url, **details))
                try:
                    if refusal:
                        with pytest.raises(ServiceError) as caught:
                            await driver.verify()
                        assert caught.value.kind is Kind.UNAVAILABLE
                        assert refusal in caught.value.message
                    else:
                        await driver.create_user(CREATE, NewUser("tls", Password("pw"), LATER))
                        await driver.drop_user((), "tls")
                finally:
                    await driver.close()


async def test_a_server_without_tls_is_refused_where_it_is_asked_for(database: Postgres) -> None:
    driver = PostgresDriver(connection(database, tls_ca=authority("ours").certificate))
    with pytest.raises(ServiceError) as caught:
        await driver.verify()
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "does not support SSL" in caught.value.message
    await driver.close()

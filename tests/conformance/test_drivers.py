"""One suite for all drivers, each against a real server.

PostgreSQL comes from PyPI. The others are taken where an environment variable names one, as tests/containers does:

STRONGROOM_TEST_MYSQL=mysql://root:password@127.0.0.1:3306
STRONGROOM_TEST_VALKEY=redis://default:password@127.0.0.1:6379
STRONGROOM_TEST_MONGODB=mongodb://root:password@127.0.0.1:27017
STRONGROOM_TEST_ORACLE=oracle://system:password@127.0.0.1:1521/FREEPDB1
STRONGROOM_TEST_FERRETDB=mongodb://root:password@127.0.0.1:27017 (version 1; its users have no roles)
"""

import datetime
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio
from tests.integration.databases import ADMIN, PASSWORD, postgres

from strongroom_dbcreds.drivers import PLUGINS
from strongroom_dbcreds.drivers.base import Driver, NewUser, NotReachedError, Password
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError

LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
HOSTILE = [
    "it's",
    'a"; DROP TABLE x; --',
    "b\\",
    "back`tick",
    "ü-ñ-木",
    "{{password}}",
    "a;b%s%(c)s$1",
]
SQL_MYSQL = (
    "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON *.* TO '{{name}}'@'%'"
)
CREATION = {
    "postgresql": "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    "mysql": SQL_MYSQL,
    "valkey": '["~app:*", "+@read", "+@connection"]',
    "mongodb": '{"db": "admin", "roles": [{"role": "read", "db": "app"}]}',
    "ferretdb": '{"db": "admin", "roles": []}',
    "oracle": 'CREATE USER "{{name}}" IDENTIFIED BY "{{password}}"; GRANT CREATE SESSION TO "{{name}}"',
}
BROKEN = {
    "postgresql": f'{CREATION["postgresql"]}; GRANT SELECT ON nothing TO "{{{{name}}}}"',
    "mysql": "CREATE USER '{{name}}'@'%' IDENTIFIED '{{password}}'",
    "valkey": '["+@nothing"]',
    "mongodb": '{"db": "admin", "roles": [{"role": "nothing", "db": "app"}]}',
    "ferretdb": '{"db": "admin", "roles": [{"role": "nothing", "db": "app"}]}',
    "oracle": 'CREATE USER "{{name}}" IDENTIFIED WITH "{{password}}"',
}


@dataclass
class Backend:
    """A server, as an operator would configure it."""

    kind: str
    connection: Connection

    def driver(self, **details: Any) -> Driver:
        known = {**self.connection.details, **details}
        return PLUGINS[self.connection.plugin](
            msgspec.structs.replace(self.connection, details=known)
        )

    async def logs_in(self, username: str, password: str) -> bool:
        driver = self.driver(username=username, password=password)
        try:
            await driver.verify()
        except ServiceError as error:
            assert error.kind is Kind.UNAVAILABLE
            return False
        finally:
            await driver.close()
        return True


@pytest.fixture(
    scope="module", params=["postgresql", "mysql", "valkey", "mongodb", "ferretdb", "oracle"]
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    kind = str(request.param)
    if kind == "postgresql":
        with postgres() as server:
            details = {"connection_url": server.url, "username": ADMIN, "password": PASSWORD}
            yield Backend(kind, Connection("postgresql-database-plugin", details))
        return
    variable = f"STRONGROOM_TEST_{kind.upper()}"
    given = os.environ.get(variable)
    if not given:
        pytest.skip(f"{variable} names no server")
    yield Backend(kind, connection_to(kind, given))


def connection_to(kind: str, given: str) -> Connection:
    """Returns a connection to a server that an environment variable names."""
    url = urlsplit(given)
    where = f"{url.hostname}:{url.port}"
    details: dict[str, Any] = {"username": url.username or "", "password": url.password or ""}
    if kind == "mysql":
        details["connection_url"] = f"{{{{username}}}}:{{{{password}}}}@tcp({where})/"
    elif kind == "oracle":
        details["connection_url"] = f"{{{{username}}}}/{{{{password}}}}@{where}{url.path}"
        return Connection("vault-plugin-database-oracle", details)
    elif kind == "valkey":
        details |= {"host": url.hostname, "port": url.port}
    else:
        details["connection_url"] = f"mongodb://{{{{username}}}}:{{{{password}}}}@{where}/admin"
    plugin = "mongodb" if kind == "ferretdb" else kind
    return Connection(f"{plugin}-database-plugin", details)


@pytest_asyncio.fixture
async def driver(backend: Backend) -> AsyncIterator[Driver]:
    driver = backend.driver()
    yield driver
    await driver.close()


def name_of(text: str) -> str:
    return f"{text}{secrets.token_hex(3)}"


async def make(driver: Driver, backend: Backend, name: str, password: str) -> None:
    user = NewUser(name, Password(password), LATER)
    await driver.create_user((CREATION[backend.kind],), user)


@pytest.mark.parametrize("text", ["v-app-", *HOSTILE])
async def test_users_of_any_name_and_password(driver: Driver, backend: Backend, text: str) -> None:
    if backend.kind == "valkey" and set(text) & set(" \0"):
        pytest.skip("the database knows no users of such names")
    if backend.kind == "oracle":
        pytest.skip("its names and passwords have no quotation marks, and those here have")
    name, password = name_of(text), f"p{text}\"'\\ß{secrets.token_hex(4)}"
    await driver.verify()
    assert not await driver.has_user((CREATION[backend.kind],), name)
    await make(driver, backend, name, password)
    assert await driver.has_user((CREATION[backend.kind],), name)
    assert await backend.logs_in(name, password)
    await driver.renew_user((), name, LATER + datetime.timedelta(hours=1))
    await driver.change_credential((), name, Password(password + "2"))
    assert not await backend.logs_in(name, password)
    assert await backend.logs_in(name, password + "2")
    for _ in range(2):
        await driver.drop_user((), name)
    assert not await backend.logs_in(name, password + "2")


@pytest.mark.parametrize("blank", [("",), (" ",), ("[]",)])
async def test_blank_statements_are_none(
    driver: Driver, backend: Backend, blank: tuple[str, ...]
) -> None:
    name = name_of("blank")
    await make(driver, backend, name, "first-Password")
    await driver.renew_user(blank, name, LATER)
    await driver.change_credential(blank, name, Password("second-Password"))
    assert await backend.logs_in(name, "second-Password")
    assert not await backend.logs_in(name, "first-Password")
    await driver.drop_user(blank, name)
    assert not await driver.has_user((CREATION[backend.kind],), name)


async def test_a_user_changes_its_own_password(driver: Driver, backend: Backend) -> None:
    name = name_of("own")
    await make(driver, backend, name, "first-Password")
    own = backend.driver(username=name, password="first-Password")
    statements = {
        "mysql": ("SET PASSWORD = PASSWORD('{{password}}')",),
        "valkey": None,
        "mongodb": None,
        "ferretdb": None,
    }.get(backend.kind, ())
    if statements is not None:
        await own.change_credential(statements, name, Password("second-Password"))
        assert await backend.logs_in(name, "second-Password")
    await own.close()
    await driver.drop_user((), name)


async def test_statements_that_fail_leave_no_user_and_show_no_password(
    driver: Driver, backend: Backend
) -> None:
    name, password = name_of("broken"), "hidden-Password-7"
    with pytest.raises(ServiceError) as caught:
        await driver.create_user((BROKEN[backend.kind],), NewUser(name, Password(password), LATER))
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message and password not in caught.value.message
    assert not await backend.logs_in(name, password)


async def test_not_even_a_part_of_a_password_is_shown(driver: Driver, backend: Backend) -> None:
    if backend.kind != "mysql":
        pytest.skip("this database does not cut what it repeats of a statement")
    name, password = name_of("cut"), "hidden-Password-7"
    statement = f"CREATE USER '{{{{name}}}}'@'%' IDENTIFIED {'B' * 68} '{{{{password}}}}'"
    with pytest.raises(ServiceError) as caught:
        await driver.create_user((statement,), NewUser(name, Password(password), LATER))
    assert "BBB" in caught.value.message and password[:3] not in caught.value.message


async def test_users_that_are_not_there(driver: Driver) -> None:
    await driver.drop_user((), "nobody-of-that-name")
    with pytest.raises(ServiceError) as caught:
        await driver.change_credential((), "nobody-of-that-name", Password("some-Password"))
    assert caught.value.kind is Kind.INVALID
    assert "some-Password" not in caught.value.message


async def test_wrong_credentials_and_no_server(backend: Backend) -> None:
    details = backend.connection.details
    nowhere: dict[str, Any] = {"port": 1} if "port" in details else {}
    if "connection_url" in details:
        head, _, tail = str(details["connection_url"]).rpartition("127.0.0.1:")
        nowhere["connection_url"] = f"{head}127.0.0.1:1{tail.lstrip('0123456789')}"
    for change in ({"password": "wrong-Password-9"}, nowhere):
        driver = backend.driver(**change)
        with pytest.raises(ServiceError) as caught:
            await driver.verify()
        assert caught.value.kind is Kind.UNAVAILABLE
        assert caught.value.message and "wrong-Password-9" not in caught.value.message
        with pytest.raises(NotReachedError):
            await make(driver, backend, name_of("never"), "never-Password-9")
        await driver.close()


async def test_details_that_are_not_known_are_named(backend: Backend) -> None:
    with pytest.raises(ServiceError) as caught:
        backend.driver(tls_certificate="x", host="h", tls_skip_verify=True, insecure_tls=True)
    assert caught.value.kind is Kind.INVALID
    assert "plugin_name" in caught.value.message


async def test_sessions_end_with_their_user(driver: Driver, backend: Backend) -> None:
    if backend.connection.plugin.startswith("mongodb"):
        pytest.skip("what `verify` asks needs no user there, and FerretDB's sessions go on")
    name = name_of("session")
    await make(driver, backend, name, "some-Password")
    own = backend.driver(username=name, password="some-Password")
    await own.verify()
    await driver.drop_user((), name)
    with pytest.raises(ServiceError):
        await own.verify()
    await own.close()

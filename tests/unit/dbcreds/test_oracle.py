"""The driver for Oracle: what it says to the database, and what it tells of errors. The database is a double."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping
from typing import Any

import oracledb
import pytest

from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import NewUser, Password
from strongroom_dbcreds.drivers.oracle import OracleDriver
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError

LATER = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
URL = "{{username}}/{{password}}@db.example:1521/ORCLPDB1"
CREATE = (
    'CREATE USER {{username}} IDENTIFIED BY "{{password}}"; GRANT CREATE SESSION TO {{username}};'
)


class Told:
    """What the library says of an error of the database."""

    def __init__(self, code: str, recoverable: bool = False) -> None:
        self.full_code = code
        self.message = f"{code}: it says no to Hidden-Password-1\nHelp: https://docs.example/"
        self.isrecoverable = recoverable


class Server:
    """A database: `users` exist, `sessions` are theirs, `fails` answers statements that contain a text."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.statements: list[str] = []
        self.users: set[str] = set()
        self.sessions: list[tuple[int, int, int]] = []
        self.fails: dict[str, oracledb.Error] = {}
        self.open = 0

    async def connect(self, **parameters: Any) -> "Session":
        if "connect" in self.fails:
            raise self.fails["connect"]
        self.parameters = parameters
        self.open += 1
        return Session(self)


class Session:
    """A connection, and its own cursor."""

    call_timeout = 0

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rows: list[Any] = []

    def cursor(self) -> "Session":
        return self

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> None:
        for text, error in self._server.fails.items():
            if text in statement:
                raise error
        if "all_users" in statement:
            self._rows = [(1,)] if values and values["name"] in self._server.users else []
        elif "gv$session" in statement:
            self._rows = list(self._server.sessions)
        elif "SELECT" not in statement and "ALTER SESSION" not in statement:
            self._server.statements.append(statement)

    async def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def commit(self) -> None: ...

    async def ping(self) -> None: ...

    async def close(self) -> None:
        self._server.open -= 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(oracledb, "connect_async", made.connect)
    return made


@pytest.fixture
async def driver(server: Server) -> AsyncIterator[OracleDriver]:
    made = opened()
    yield made
    await made.close()
    assert not server.open


def opened(url: str = URL, **more: Any) -> OracleDriver:
    known = {"connection_url": url, "username": "admin/x", "password": "p@ss:w/rd", **more}
    return OracleDriver(Connection("vault-plugin-database-oracle", known))


async def test_a_user_is_made_changed_and_dropped(server: Server, driver: OracleDriver) -> None:
    await driver.verify()
    assert server.parameters["user"] == "admin/x"
    assert server.parameters["password"] == "p@ss:w/rd"
    assert server.parameters["dsn"] == "db.example:1521/ORCLPDB1"
    await driver.create_user((CREATE,), NewUser("V_APP", Password("it's $1"), LATER))
    await driver.renew_user((), "V_APP", LATER)
    await driver.change_credential((), "V_APP", Password("other"))
    server.users, server.sessions = {"V_APP"}, [(7, 11, 1)]
    await driver.drop_user((), "V_APP")
    assert server.statements == [
        'CREATE USER "V_APP" IDENTIFIED BY "it\'s $1"',
        'GRANT CREATE SESSION TO "V_APP"',
        'ALTER USER "V_APP" IDENTIFIED BY "other"',
        'ALTER USER "V_APP" ACCOUNT LOCK',
        "ALTER SYSTEM KILL SESSION '7,11,@1' IMMEDIATE",
        'DROP USER "V_APP"',
    ]


async def test_statements_of_a_role_are_used(server: Server, driver: OracleDriver) -> None:
    server.users = {"V_APP"}
    await driver.renew_user(
        ("ALTER USER \"{{name}}\" PROFILE p; COMMENT '{{expiration}}'",), "V_APP", LATER
    )
    await driver.drop_user(('DROP USER "{{name}}" CASCADE',), "V_APP")
    assert "COMMENT '2030-01-02 03:04:05'" in server.statements
    assert server.statements[-1] == 'DROP USER "V_APP" CASCADE'


async def test_a_user_that_is_gone_is_no_error(server: Server, driver: OracleDriver) -> None:
    await driver.drop_user((), "V_GONE")
    assert server.statements == []


async def test_a_session_that_ends_by_itself_is_no_error(
    server: Server, driver: OracleDriver
) -> None:
    server.users, server.sessions = {"V_APP"}, [(7, 11, 1)]
    server.fails["KILL"] = oracledb.DatabaseError(Told("ORA-00030"))
    await driver.drop_user((), "V_APP")
    assert server.statements[-1] == 'DROP USER "V_APP"'
    server.fails["KILL"] = oracledb.DatabaseError(Told("ORA-01031"))
    with pytest.raises(ServiceError) as caught:
        await driver.drop_user((), "V_APP")
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    ("name", "password"), [('a"b', "x"), ("V_APP", 'x"; DROP'), ("x" * 129, "x"), ("", "x")]
)
async def test_names_and_passwords_that_cannot_be_quoted_change_nothing(
    server: Server, driver: OracleDriver, name: str, password: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        await driver.create_user((CREATE,), NewUser(name, Password(password), LATER))
    assert caught.value.kind is Kind.INVALID
    assert server.statements == []


@pytest.mark.parametrize(
    ("code", "recoverable", "kind"),
    [
        ("ORA-01031", False, Kind.INVALID),
        ("ORA-01920", False, Kind.INVALID),
        ("ORA-00020", False, Kind.UNAVAILABLE),
        ("ORA-03113", False, Kind.UNAVAILABLE),
        ("DPY-4011", False, Kind.UNAVAILABLE),
        ("ORA-99999", True, Kind.UNAVAILABLE),
    ],
)
async def test_errors_are_told_in_one_line_without_a_password(
    server: Server, driver: OracleDriver, code: str, recoverable: bool, kind: Kind
) -> None:
    server.fails["CREATE USER"] = oracledb.DatabaseError(Told(code, recoverable))
    with pytest.raises(ServiceError) as caught:
        await driver.create_user((CREATE,), NewUser("V_APP", Password("Hidden-Password-1"), LATER))
    assert (caught.value.kind, caught.value.message) == (kind, f"{code}: it says no to ***")


async def test_who_cannot_log_in_is_told_that_the_database_is_away(
    server: Server, driver: OracleDriver
) -> None:
    server.fails["connect"] = oracledb.DatabaseError(Told("ORA-01017"))
    with pytest.raises(ServiceError) as caught:
        await driver.verify()
    assert caught.value.kind is Kind.UNAVAILABLE
    assert caught.value.message.startswith("ORA-01017")


async def test_a_port_where_nothing_listens_and_one_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the library itself."""
    monkeypatch.setattr(details, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("strongroom_dbcreds.drivers.pool.CONNECT_SECONDS", 0.5)
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    for address in (f"127.0.0.1:{port}/X", "127.0.0.1:1/X"):
        driver = opened(f"{{{{username}}}}/{{{{password}}}}@{address}")
        with pytest.raises(ServiceError) as caught:
            await driver.verify()
        assert caught.value.kind is Kind.UNAVAILABLE
        assert caught.value.message and "p@ss" not in caught.value.message
        await driver.close()
    listener.close()


def test_certificates_ask_for_an_address_with_tls() -> None:
    with pytest.raises(ServiceError) as caught:
        opened(tls_skip_verify=True)
    assert "tcps://" in caught.value.message
    assert opened("{{username}}/{{password}}@tcps://db.example:2484/X", tls_skip_verify=True)

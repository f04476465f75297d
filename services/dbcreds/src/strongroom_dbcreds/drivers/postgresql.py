"""PostgreSQL, through psycopg 3."""

import asyncio
import contextlib
import datetime
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.drivers.base import Credential, Driver, NewUser, Password
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError, invalid

_CONNECT_SECONDS = 10
_OPEN = 4
_SCRAM = "scram-sha-256"
_RENEW = ("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",)
_CHANGE = ("ALTER ROLE \"{{name}}\" WITH PASSWORD '{{password}}'",)
_FILES = {"tls_ca": "sslrootcert", "tls_certificate": "sslcert", "private_key": "sslkey"}

_Connection = psycopg.AsyncConnection[tuple[object, ...]]


def driver(connection: Connection) -> Driver:
    """Returns a driver for a connection.

    Raises:
        ServiceError: INVALID.
    """
    return PostgresDriver(connection)


class PostgresDriver:
    """Implements `Driver`."""

    def __init__(self, connection: Connection) -> None:
        details = connection.details
        if not details.get("connection_url"):
            raise invalid("connection_url: must be given")
        authentication = details.get("password_authentication") or "password"
        if authentication not in ("password", _SCRAM):
            raise invalid(f"password_authentication: takes password or {_SCRAM}")
        self._scram = authentication == _SCRAM
        self._secrets = [str(details[name]) for name in ("password",) if details.get(name)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._pool = _Pool(self._conninfo(details), details, self._error)

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        async with self._pool.connection() as connection:
            await connection.execute("SELECT 1")

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        """Makes a user by the role's statements, all in one transaction."""
        if not templates.texts(statements):
            raise invalid("creation_statements: the role has none")
        await self._run(statements, user.username, user.credential, user.expiration)

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        """Lets a user live longer."""
        await self._run(statements or _RENEW, username, None, expiration)

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user and ends its sessions."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s", (username,)
            )
            role = await found.fetchone()
            if role is None:
                return
            if templates.texts(statements):
                await self._execute(connection, statements, {"name": username})
            else:
                await _drop(connection, username)
            # Afterwards, when nobody can log in any more. A connection that may not is no reason to fail.
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                await connection.execute(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
                    "WHERE usesysid = %s",
                    role,
                )

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        """Replaces what a user logs in with."""
        await self._run(statements or _CHANGE, username, credential, None)

    async def close(self) -> None:
        """Closes what is open."""
        await self._pool.close()
        if self._folder is not None:
            self._folder.cleanup()

    async def _run(
        self,
        statements: Sequence[str],
        username: str,
        credential: Credential | None,
        expiration: datetime.datetime | None,
    ) -> None:
        values = {"name": username}
        if expiration is not None:
            values["expiration"] = expiration.strftime("%Y-%m-%d %H:%M:%S%z")
        known = credential.password if isinstance(credential, Password) else ""
        async with self._pool.connection(hide=known) as connection:
            if isinstance(credential, Password):
                values["password"] = self._shown(connection, username, credential.password)
            elif credential is not None:
                raise invalid("credential_type: PostgreSQL takes password")
            await self._execute(connection, statements, values)

    def _shown(self, connection: _Connection, username: str, password: str) -> str:
        """Returns a password as the database is told: itself, or a verifier made of it (RFC 5802)."""
        if not self._scram:
            return password
        verifier = connection.pgconn.encrypt_password(
            password.encode(), username.encode(), _SCRAM.encode()
        )
        return bytes(verifier).decode()

    async def _execute(
        self, connection: _Connection, statements: Sequence[str], values: Mapping[str, str]
    ) -> None:
        texts = [templates.fill(text, values) for text in templates.texts(statements)]
        async with connection.transaction():
            for text in texts:
                await connection.execute(text.encode())

    def _conninfo(self, details: Mapping[str, object]) -> str:
        url = str(details["connection_url"])
        for name in ("username", "password"):
            value = str(details.get(name) or "")
            url = url.replace(
                f"{{{{{name}}}}}", value if details.get("disable_escaping") else quote(value, "")
            )
        files = {}
        for name, parameter in _FILES.items():
            if details.get(name):
                files[parameter] = self._file(name, str(details[name]))
        try:
            return make_conninfo(
                url, connect_timeout=_CONNECT_SECONDS, application_name="strongroom", **files
            )
        except psycopg.Error:
            raise invalid("connection_url: is not one that PostgreSQL takes") from None

    def _file(self, name: str, content: str) -> str:
        """Writes what the client library reads from files alone; it goes with the driver."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="strongroom-")
        path = Path(self._folder.name) / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)

    def _error(self, error: psycopg.Error, *, away: bool, hide: str) -> ServiceError:
        """Returns what a client may be told: the database's message, without any password."""
        text = (error.diag.message_primary or str(error)).strip() or type(error).__name__
        for secret in (*self._secrets, hide):
            if secret:
                text = text.replace(secret, "***").replace(quote(secret, ""), "***")
        return ServiceError(Kind.UNAVAILABLE if away else Kind.INVALID, text)


class _Pool:
    """A few connections, opened when they are needed."""

    def __init__(
        self, conninfo: str, details: Mapping[str, object], tell: Callable[..., ServiceError]
    ) -> None:
        self._conninfo = conninfo
        most = _number(details, "max_open_connections") or _OPEN
        idle = _number(details, "max_idle_connections")
        self._slots = asyncio.Semaphore(max(most, 1))
        self._most_idle = most if idle == 0 else max(idle, 0)
        self._lifetime = _number(details, "max_connection_lifetime")
        self._idle: list[tuple[_Connection, float]] = []
        self._closed = False
        self._tell = tell

    @contextlib.asynccontextmanager
    async def connection(self, hide: str = "") -> AsyncIterator[_Connection]:
        """Lends a connection in which each statement is a transaction; says what goes wrong as ServiceError."""
        async with self._slots:
            try:
                held, opened = await self._open()
            except psycopg.Error as error:
                raise self._tell(error, away=True, hide=hide) from None
            kept = False
            try:
                yield held
                kept = True
            except psycopg.Error as error:
                kept = not held.closed
                away = held.closed or isinstance(error, psycopg.OperationalError)
                raise self._tell(error, away=away, hide=hide) from None
            except ServiceError:
                kept = True
                raise
            finally:
                if kept and not self._closed and len(self._idle) < self._most_idle:
                    self._idle.append((held, opened))
                else:
                    await _close(held)

    async def close(self) -> None:
        """Closes those that nobody uses; the others close when they come back."""
        self._closed = True
        while self._idle:
            await _close(self._idle.pop()[0])

    async def _open(self) -> tuple[_Connection, float]:
        while self._idle:
            held, opened = self._idle.pop()
            if not self._lifetime or time.monotonic() - opened < self._lifetime:
                with contextlib.suppress(psycopg.Error):
                    await held.execute("SELECT 1")  # the database may have gone meanwhile
                    return held, opened
            await _close(held)
        connected = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        return connected, time.monotonic()


async def _drop(connection: _Connection, username: str) -> None:
    """Removes a user that may own something: what it owns goes to the connection's own user, and is not lost."""
    user = sql.Identifier(username)
    try:
        async with connection.transaction():
            await connection.execute(
                sql.SQL(
                    "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE IF EXISTS {0}"
                ).format(user)
            )
    except psycopg.errors.InsufficientPrivilege:
        await _drop_with_less(connection, username)


async def _drop_with_less(connection: _Connection, username: str) -> None:
    """Removes a user without being superuser or a member of its role: takes its rights away one by one."""
    user = sql.Identifier(username)
    found = await connection.execute(
        "SELECT DISTINCT table_schema, table_name FROM information_schema.role_table_grants "
        "WHERE grantee = %s",
        (username,),
    )
    tables = [sql.Identifier(str(schema), str(table)) for schema, table in await found.fetchall()]
    async with connection.transaction():
        for table in tables:
            await connection.execute(
                sql.SQL("REVOKE ALL PRIVILEGES ON {0} FROM {1}").format(table, user)
            )
        database = sql.Identifier(connection.info.dbname)
        await connection.execute(
            sql.SQL(
                "REVOKE ALL PRIVILEGES ON DATABASE {0} FROM {1}; DROP ROLE IF EXISTS {1}"
            ).format(database, user)
        )


async def _close(connection: _Connection) -> None:
    with contextlib.suppress(psycopg.Error):
        await connection.close()


def _number(details: Mapping[str, object], name: str) -> int:
    value = details.get(name) or 0
    return value if isinstance(value, int) else 0

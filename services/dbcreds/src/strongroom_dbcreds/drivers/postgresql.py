"""PostgreSQL, through psycopg 3."""

import contextlib
import datetime
import select
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import (
    ClientCertificate,
    Credential,
    Driver,
    NewUser,
    NotReachedError,
    Password,
)
from strongroom_dbcreds.drivers.pool import Pool
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError, invalid

_LONGEST_NAME = (
    63  # bytes; PostgreSQL cuts longer ones off, and would then make another user than was recorded
)
_SCRAM = "scram-sha-256"
_RENEW = ("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",)
_CHANGE = ("ALTER ROLE \"{{name}}\" WITH PASSWORD '{{password}}'",)
_FILES = {"tls_ca": "sslrootcert", "tls_certificate": "sslcert", "private_key": "sslkey"}
_KNOWN = ("connection_url", "disable_escaping", "password_authentication", *_FILES)
# The rules by which values are quoted hold only so.
_SESSION = "SET standard_conforming_strings = on; SET client_encoding = 'UTF8'"

_END_SESSIONS = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = %s"
_END_ORPHANS = (
    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
    "WHERE usesysid NOT IN (SELECT oid FROM pg_catalog.pg_roles)"
)

_Connection = psycopg.AsyncConnection[tuple[object, ...]]


def driver(connection: Connection) -> Driver:
    """Returns a driver for a connection.

    Raises:
        ServiceError: INVALID.
    """
    return PostgresDriver(connection)


class PostgresDriver:
    """Implements `Driver`. The statements of one call are one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._details = details.read(connection.details, _KNOWN)
        authentication = self._details.text("password_authentication") or "password"
        if authentication not in ("password", _SCRAM):
            raise invalid(f"password_authentication: takes password or {_SCRAM}")
        self._scram = authentication == _SCRAM
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._conninfo = self._address()
        self._pool: Pool[_Connection] = Pool(
            self._details.limits, self._connect, _alive, _close, self._told, _quiet
        )

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        async with self._pool.lend() as connection:
            await connection.execute("SELECT 1")

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        """Returns whether there is a role."""
        async with self._pool.lend() as connection:
            return await _oid(connection, username) is not None

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        """Makes a user by the role's statements."""
        texts = templates.texts(statements)
        if not texts:
            raise invalid("creation_statements: the role has none")
        await self._run(texts, user.username, user.credential, user.expiration)

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        """Lets a user live longer."""
        await self._run(templates.texts(statements) or _RENEW, username, None, expiration)

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user and ends its sessions; what it owns goes to the connection's own user, and is not lost."""
        async with self._pool.lend() as connection:
            role = await _oid(connection, username)
            if role is None:
                # An attempt before this one may have ended between the two steps below.
                await _end(connection, _END_ORPHANS)
                return
            if texts := templates.texts(statements):
                await _execute(connection, texts, {"name": username})
            else:
                await _drop(connection, username, role)
            # Afterwards: nobody can log in any more, and who had logged in before is cut off.
            await _end(connection, _END_SESSIONS, role)

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        """Replaces what a user logs in with."""
        async with self._pool.lend() as connection:
            if await _oid(connection, username) is None:
                raise invalid("username: the database has no such user")
        await self._run(templates.texts(statements) or _CHANGE, username, credential, None)

    async def close(self) -> None:
        """Closes what is open."""
        await self._pool.close()
        if self._folder is not None:
            self._folder.cleanup()

    async def _run(
        self,
        texts: Sequence[str],
        username: str,
        credential: Credential | None,
        expiration: datetime.datetime | None,
    ) -> None:
        if not 0 < len(username.encode()) <= _LONGEST_NAME:
            raise invalid(f"username: must have 1 to {_LONGEST_NAME} bytes")
        values = {"name": username}
        if expiration is not None:
            values["expiration"] = expiration.strftime("%Y-%m-%d %H:%M:%S%z")
        try:
            async with self._pool.lend() as connection:
                values |= self._shown(connection, username, credential)
                await _execute(connection, texts, values)
        except NotReachedError:
            raise
        except ServiceError as error:
            hidden = [values.get("password", "")]
            if isinstance(credential, Password):
                hidden.append(credential.password)
            raise ServiceError(error.kind, self._details.scrub(error.message, *hidden)) from None

    def _shown(
        self, connection: _Connection, username: str, credential: Credential | None
    ) -> dict[str, str]:
        """Returns a credential as the database is told: a password, or a verifier made of it (RFC 5802)."""
        if credential is None:
            return {}
        if isinstance(credential, ClientCertificate):
            return {"subject": credential.subject}
        if not isinstance(credential, Password):
            raise invalid("credential_type: this plugin_name takes password or client_certificate")
        if not self._scram:
            return {"password": credential.password}
        verifier = connection.pgconn.encrypt_password(
            credential.password.encode(), username.encode(), _SCRAM.encode()
        )
        return {"password": bytes(verifier).decode()}

    async def _connect(self) -> _Connection:
        # Nothing is prepared: a text of several statements cannot be, and texts with passwords would be remembered.
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=None
        )
        await connection.execute(_SESSION)
        return connection

    def _address(self) -> str:
        try:
            # User and password are put in after parsing, so that nothing in them can become another parameter.
            parsed = conninfo_to_dict(
                self._details.url.replace("{{", "%7B%7B").replace("}}", "%7D%7D")
                if "://" in self._details.url
                else self._details.url
            )
        except psycopg.Error:
            raise invalid("connection_url: is not one that PostgreSQL takes") from None
        parameters = {name: self._details.placed(str(value)) for name, value in parsed.items()}
        for name, default in (
            ("user", self._details.username),
            ("password", self._details.password),
        ):
            if default and not parameters.get(name):
                parameters[name] = default
        files = {p: self._file(n) for n, p in _FILES.items() if self._details.text(n)}
        if "sslrootcert" in files:
            parameters.setdefault("sslmode", "verify-full")
        usual = {
            "connect_timeout": str(int(details.CONNECT_SECONDS)),
            "application_name": "strongroom",
        }
        return make_conninfo(**{**usual, **parameters, **files})

    def _file(self, name: str) -> str:
        """Writes what the client library reads from files alone; it goes with the driver."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="strongroom-")
        path = Path(self._folder.name) / name
        path.touch(mode=0o600)
        path.write_text(self._details.text(name))
        return str(path)

    def _told(self, error: Exception, connected: bool) -> ServiceError | None:
        if isinstance(error, ServiceError):
            return error
        if not isinstance(error, psycopg.Error):
            return None
        text = (error.diag.message_primary or str(error)).strip() or type(error).__name__
        away = not connected or isinstance(error, psycopg.OperationalError)
        return ServiceError(Kind.UNAVAILABLE if away else Kind.INVALID, self._details.scrub(text))


async def _oid(connection: _Connection, username: str) -> tuple[object, ...] | None:
    found = await connection.execute(
        "SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s", (username,)
    )
    return await found.fetchone()


async def _execute(
    connection: _Connection, texts: Sequence[str], values: Mapping[str, str]
) -> None:
    filled = [templates.fill(text, values) for text in texts]
    if len(filled) == 1:
        await _execute_one(connection, filled[0])
        return
    async with connection.transaction():
        for text in filled:
            await connection.execute(text.encode())


async def _execute_one(connection: _Connection, text: str) -> None:
    """Runs a text of statements, which is one transaction by itself ("Multiple Statements in a Simple Query")."""
    try:
        await connection.execute(text.encode())
    except psycopg.Error:
        if connection.info.transaction_status is TransactionStatus.INERROR:
            await connection.rollback()
        raise
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        await connection.commit()  # the text has begun one itself


async def _end(connection: _Connection, query: LiteralString, role: Sequence[object] = ()) -> None:
    """Ends sessions, where the connection's user may."""
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        await connection.execute(query, role)


async def _drop(connection: _Connection, username: str, role: Sequence[object]) -> None:
    """Removes a user that may own something.

    Without superuser's rights the connection's user first joins the role, as whoever made it may. Then it may end the
    role's sessions too, but only as long as there is the role.
    """
    user = sql.Identifier(username)
    drop = sql.SQL(
        "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE IF EXISTS {0}"
    ).format(user)
    try:
        await connection.execute(drop)
    except psycopg.errors.InsufficientPrivilege:
        for statement in ("GRANT {0} TO CURRENT_USER", "ALTER ROLE {0} NOLOGIN"):
            await connection.execute(sql.SQL(statement).format(user))
        await _end(connection, _END_SESSIONS, role)
        await connection.execute(drop)


def _quiet(connection: _Connection) -> bool:
    """Returns whether nothing waits to be read: a server that goes says so, or closes the socket."""
    if connection.closed:
        return False
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return not look.poll(0)


async def _alive(connection: _Connection) -> bool:
    try:
        await connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


async def _close(connection: _Connection) -> None:
    with contextlib.suppress(psycopg.Error):
        await connection.close()

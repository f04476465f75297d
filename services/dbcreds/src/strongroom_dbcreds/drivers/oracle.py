"""Oracle Database, through oracledb in its thin mode: no client library of Oracle's is needed.

Every statement about users is committed by itself, as the database has it. Names and passwords stand in double
quotation marks, in which the database knows no escape: one that contains such a mark is refused.
"""

import contextlib
import re
import ssl
from collections.abc import Sequence
from typing import Any

import oracledb

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.domain.statements import ORACLE
from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import Credential, Driver, Password
from strongroom_dbcreds.drivers.sql import SqlDriver
from strongroom_dbcreds.drivers.tls import context
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError, invalid

_KNOWN = (
    "connection_url", "disable_escaping", "tls_ca", "tls_certificate_key", "tls_server_name", "tls_skip_verify",
)  # fmt: skip
# {{username}}/{{password}}@host:port/service, or tcps://host:port/service, or a descriptor, behind the last @.
_URL = re.compile(r"(?:(?P<user>[^/@]*)(?:/(?P<password>[^@]*))?@)?(?P<address>.+)", re.DOTALL)
_LONGEST_NAME = 128
_CHANGE = ('ALTER USER "{{name}}" IDENTIFIED BY "{{password}}"',)
_DROP = ('DROP USER "{{name}}"',)
_SESSION = "ALTER SESSION SET DDL_LOCK_TIMEOUT = 10"
# What the server says of its own troubles: processes and sessions used up, locks, starting, stopping, not there.
_AWAY = frozenset(
    f"ORA-{number:05}"
    for number in (
        18, 20, 54, 60, 1012, 1033, 1034, 1089, 1090, 1092, 2396, 3113, 3114, 3135, 4021,
        12514, 12516, 12518, 12519, 12528, 12537, 12541,
    )
)  # fmt: skip
_GONE = frozenset({"ORA-00026", "ORA-00030", "ORA-00031"})  # a session that ended, or is about to


def driver(connection: Connection) -> Driver:
    """Returns a driver for a connection.

    Raises:
        ServiceError: INVALID.
    """
    return OracleDriver(connection)


class OracleDriver(SqlDriver):
    """Implements `Driver`."""

    known = _KNOWN
    dialect = ORACLE
    change = _CHANGE

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        async with self._pool.lend() as connection:
            await self._query(connection, "SELECT 1 FROM DUAL")

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        """Returns whether there is a user."""
        async with self._pool.lend() as connection:
            return await _exists(connection, username)

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user and ends its sessions; statements run only while it exists."""
        async with self._pool.lend() as connection:
            if not await _exists(connection, username):
                return
            # A user with sessions cannot be dropped; one that is locked gets no new ones.
            await self._execute(
                connection, ('ALTER USER "{{name}}" ACCOUNT LOCK',), {"name": username}
            )
            await _end_sessions(connection, username)
            await self._execute(
                connection, templates.texts(statements) or _DROP, {"name": username}
            )

    def _values(self, username: str, credential: Credential | None) -> dict[str, str]:
        if not 0 < len(username.encode()) <= _LONGEST_NAME:
            raise invalid(f"username: must have 1 to {_LONGEST_NAME} bytes")
        values = {"name": username}
        if isinstance(credential, Password):
            values["password"] = credential.password
        elif credential is not None:
            raise invalid("credential_type: this plugin_name takes password")
        return values

    async def _connect(self) -> Any:
        connection = await oracledb.connect_async(**self._parameters)
        connection.call_timeout = int(details.CALL_SECONDS * 1000)
        await self._query(connection, _SESSION)
        return connection

    async def _alive(self, connection: Any) -> bool:
        try:
            await connection.ping()
        except (oracledb.Error, OSError):
            return False
        return True

    async def _close(self, connection: Any) -> None:
        with contextlib.suppress(oracledb.Error, OSError):
            await connection.close()

    async def _query(self, connection: Any, statement: str) -> None:
        with connection.cursor() as cursor:
            await cursor.execute(statement)

    def _address(self) -> dict[str, Any]:
        match = _URL.fullmatch(self._details.url)
        if match is None:
            raise invalid("connection_url: takes {{username}}/{{password}}@host:port/service")
        parameters: dict[str, Any] = {
            "user": self._details.placed(match["user"] or "{{username}}"),
            "password": self._details.placed(match["password"] or "{{password}}"),
            "dsn": match["address"],
            "tcp_connect_timeout": details.CONNECT_SECONDS,
            "program": "strongroom",
        }
        tls = self._tls(match["address"])
        return parameters | ({"ssl_context": tls} if tls is not None else {})

    def _tls(self, address: str) -> ssl.SSLContext | None:
        on = "tcps" in address.lower()
        made = context(self._details, on=on)
        if made is not None and not on:
            raise invalid("connection_url: with certificates, takes tcps://host:port/service")
        return made

    def _told(self, error: Exception, connected: bool) -> ServiceError | None:
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, OSError | EOFError):
            return ServiceError(Kind.UNAVAILABLE, self._details.scrub(str(error)))
        if not isinstance(error, oracledb.Error):
            return None
        told = error.args[0] if error.args else error
        code, text = getattr(told, "full_code", ""), getattr(told, "message", str(error))
        recoverable = bool(getattr(told, "isrecoverable", False))
        away = not connected or recoverable or code in _AWAY or code.startswith("DPY-4")
        first = str(text).strip().splitlines()[0] if str(text).strip() else code
        return ServiceError(
            Kind.UNAVAILABLE if away else Kind.INVALID, self._details.scrub(first or "no text")
        )


async def _exists(connection: Any, username: str) -> bool:
    with connection.cursor() as cursor:
        await cursor.execute("SELECT 1 FROM all_users WHERE username = :name", {"name": username})
        return await cursor.fetchone() is not None


async def _end_sessions(connection: Any, username: str) -> None:
    with connection.cursor() as cursor:
        await cursor.execute(
            "SELECT sid, serial#, inst_id FROM gv$session WHERE username = :name",
            {"name": username},
        )
        for session, serial, instance in await cursor.fetchall():
            where = f"{int(session)},{int(serial)},@{int(instance)}"
            try:
                await cursor.execute(f"ALTER SYSTEM KILL SESSION '{where}' IMMEDIATE")
            except oracledb.DatabaseError as error:
                if getattr(error.args[0], "full_code", "") not in _GONE:
                    raise

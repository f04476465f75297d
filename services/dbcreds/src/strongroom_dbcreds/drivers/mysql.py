"""MySQL and MariaDB, through asyncmy."""

import contextlib
import re
import ssl
from collections.abc import Sequence
from typing import Any

import asyncmy
from asyncmy.errors import InterfaceError, MySQLError, OperationalError

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.domain.statements import MYSQL
from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import (
    ClientCertificate,
    Credential,
    Driver,
    Password,
)
from strongroom_dbcreds.drivers.sql import SqlDriver
from strongroom_dbcreds.drivers.tls import context
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError, invalid

_KNOWN = (
    "connection_url",
    "disable_escaping",
    "tls_ca",
    "tls_certificate_key",
    "tls_server_name",
    "tls_skip_verify",
)
# Go's form of an address, which Vault takes: user:password@tcp(host:port)/database?parameters
_URL = re.compile(
    r"(?:(?P<user>[^:/]*)(?::(?P<password>.*))?@)?(?:(?P<net>tcp|unix)\((?P<address>[^)]*)\))?"
    r"/(?P<database>[^?]*)(?:\?(?P<query>.*))?"
)
_CHANGE = ("ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}'",)
_DROP = ("DROP USER IF EXISTS '{{name}}'@'%'",)
# The rules by which values are quoted hold only so.
_SESSION = "SET SESSION sql_mode = REPLACE(REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', ''), 'ANSI_QUOTES', '')"
# What the server says of its own troubles, not of a statement: too many connections, shutting down, killed, locks.
_AWAY = frozenset({1040, 1053, 1077, 1129, 1203, 1205, 1213, 1317, 3024})
_FIRST_CLIENT_ERROR = 2000  # the client's own: not reached, gone
_PLAIN_TLS = {"": None, "false": None, "true": True, "skip-verify": False, "preferred": None}


def driver(connection: Connection) -> Driver:
    """Returns a driver for a connection.

    Raises:
        ServiceError: INVALID.
    """
    return MySqlDriver(connection)


class MySqlDriver(SqlDriver):
    """Implements `Driver`."""

    known = _KNOWN
    dialect = MYSQL
    change = _CHANGE

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        async with self._pool.lend() as connection:
            await connection.ping(reconnect=False)

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        """Returns whether there is a user of that name, at any host."""
        async with self._pool.lend() as connection:
            return bool(await _count(connection, "mysql.user", username))

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user and ends its sessions; statements run only while it exists."""
        async with self._pool.lend() as connection:
            if await _count(connection, "mysql.user", username):
                await self._execute(
                    connection, templates.texts(statements) or _DROP, {"name": username}
                )
            await _end_sessions(connection, username)

    def _values(self, username: str, credential: Credential | None) -> dict[str, str]:
        values = {"name": username}
        if isinstance(credential, Password):
            values["password"] = credential.password
        elif isinstance(credential, ClientCertificate):
            values["subject"] = (
                f"/CN={credential.common_name}"  # OpenSSL's form (X509_NAME_oneline)
            )
        elif credential is not None:
            raise invalid("credential_type: this plugin_name takes password or client_certificate")
        return values

    async def _connect(self) -> Any:
        connection: Any = await asyncmy.connect(**self._parameters)
        await self._query(connection, _SESSION)
        return connection

    async def _alive(self, connection: Any) -> bool:
        try:
            await connection.ping(reconnect=False)
        except (MySQLError, OSError, EOFError, AttributeError):
            return False
        return True

    async def _close(self, connection: Any) -> None:
        with contextlib.suppress(Exception):
            connection.close()

    async def _query(self, connection: Any, statement: str) -> None:
        async with connection.cursor() as cursor:
            await cursor.execute(statement)

    def _address(self) -> dict[str, Any]:
        match = _URL.fullmatch(self._details.url)
        if match is None:
            raise invalid("connection_url: takes {{username}}:{{password}}@tcp(host:port)/database")
        user = self._details.placed(match["user"] or "{{username}}")
        password = self._details.placed(match["password"] or "{{password}}")
        address = match["address"] or "127.0.0.1:3306"
        where: dict[str, Any] = {"unix_socket": address}
        if match["net"] != "unix":
            host, _, port = (
                address.rpartition(":") if not address.endswith("]") else (address, "", "")
            )
            host, port = (host, port) if host else (address, "3306")
            if not port.isdecimal():
                raise invalid("connection_url: the port must be a number")
            where = {"host": host.strip("[]"), "port": int(port)}
        return {
            **where,
            "user": user,
            # As bytes: the library would write it in Latin-1, and other characters could not log in.
            "password": password.encode(),
            "database": self._details.placed(match["database"]) or None,
            "charset": "utf8mb4",
            "autocommit": False,
            "connect_timeout": int(details.CONNECT_SECONDS),
            "ssl": self._tls(match["query"] or ""),
        }

    def _tls(self, query: str) -> ssl.SSLContext | None:
        wanted = dict(part.partition("=")[::2] for part in query.split("&")).get("tls", "")
        if wanted not in _PLAIN_TLS and wanted != "custom":
            raise invalid("connection_url: tls takes true, false or skip-verify")
        return context(
            self._details,
            on=_PLAIN_TLS.get(wanted) is not None,
            verify=_PLAIN_TLS.get(wanted) is not False,
        )

    def _told(self, error: Exception, connected: bool) -> ServiceError | None:
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, OSError | EOFError):
            return ServiceError(Kind.UNAVAILABLE, self._details.scrub(str(error)))
        if not isinstance(error, MySQLError):
            return None
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        away = not connected or isinstance(error, InterfaceError) or code in _AWAY
        away = away or (
            isinstance(error, OperationalError) and code >= _FIRST_CLIENT_ERROR and code < 3000
        )
        text = str(error.args[1] if len(error.args) > 1 else error)
        return ServiceError(Kind.UNAVAILABLE if away else Kind.INVALID, self._details.scrub(text))


async def _count(connection: Any, table: str, username: str) -> int:
    async with connection.cursor() as cursor:
        await cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE User = %s", (username,))  # noqa: S608 (a constant)
        return int((await cursor.fetchone())[0])


async def _end_sessions(connection: Any, username: str) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = %s", (username,)
        )
        for (session,) in await cursor.fetchall():
            with contextlib.suppress(MySQLError):  # it ended by itself
                await cursor.execute(f"KILL {int(session)}")

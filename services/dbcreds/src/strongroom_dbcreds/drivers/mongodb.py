"""MongoDB, through pymongo.

Statements are JSON, as Vault has it: {"db": "admin", "roles": [{"role": "readWrite", "db": "app"}]}.
"""

import contextlib
import datetime
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from pymongo import AsyncMongoClient
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import (
    ClientCertificate,
    Credential,
    Driver,
    NewUser,
    Password,
    reach,
)
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.tools import base64_text

_KNOWN = (
    "connection_url", "disable_escaping", "write_concern", "tls_ca", "tls_certificate_key",
)  # fmt: skip
_CERTIFICATES = "$external"  # the database in which users of certificates are
_READS = frozenset({"ping", "usersInfo"})
_USER_NOT_FOUND = 11
_AUTHENTICATION_FAILED = 18


def driver(connection: Connection) -> Driver:
    """Returns a driver for a connection.

    Raises:
        ServiceError: INVALID.
    """
    return MongoDriver(connection)


class MongoDriver:
    """Implements `Driver`."""

    def __init__(self, connection: Connection) -> None:
        self._details = details.read(connection.details, _KNOWN)
        self._concern = _json(self._details.text("write_concern"), "write_concern")
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._client: AsyncMongoClient[dict[str, Any]] | None = None
        if not self._details.url.startswith(("mongodb://", "mongodb+srv://")):
            raise invalid(
                "connection_url: takes mongodb://{{username}}:{{password}}@host:port/admin"
            )

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        await self._command("admin", {"ping": 1})

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        """Returns whether there is a user in the database of the statements."""
        texts = templates.texts(statements)
        wanted = _json(texts[0], "creation_statements") if texts else {}
        database = str(wanted.get("db") or "admin")
        if username.startswith("CN="):
            database = _CERTIFICATES
        return bool((await self._command(database, {"usersInfo": username})).get("users"))

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        """Makes a user with the role's roles."""
        texts = templates.texts(statements)
        if len(texts) != 1:
            raise invalid("creation_statements: takes one JSON object with db and roles")
        wanted = _json(texts[0], "creation_statements")
        database, command = str(wanted.get("db") or "admin"), {"roles": wanted.get("roles")}
        if not isinstance(command["roles"], list):
            raise invalid("creation_statements: roles must be a list")
        await reach(self)
        if isinstance(user.credential, ClientCertificate):
            await self._command(_CERTIFICATES, {"createUser": user.credential.subject, **command})
            return
        password = _password(user.credential)
        await self._command(
            database, {"createUser": user.username, "pwd": password, **command}, hide=password
        )

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        """Does nothing: the database knows no end of users."""

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user; the database ends what it may do at once."""
        texts = templates.texts(statements)
        wanted = _json(texts[0], "revocation_statements") if texts else {}
        databases = [str(wanted.get("db") or "admin")]
        if username.startswith("CN="):
            databases.append(_CERTIFICATES)  # the subject of a certificate
        for database in databases:
            with contextlib.suppress(_NoSuchUserError):
                await self._command(database, {"dropUser": username})

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        """Replaces a user's password."""
        texts = templates.texts(statements)
        wanted = _json(texts[0], "rotation_statements") if texts else {}
        database = str(wanted.get("db") or "admin")
        password = _password(credential)
        await self._command(database, {"updateUser": username, "pwd": password}, hide=password)

    async def close(self) -> None:
        """Closes what is open."""
        if self._client is not None:
            await self._client.close()
        if self._folder is not None:
            self._folder.cleanup()

    async def _command(
        self, database: str, command: dict[str, Any], hide: str = ""
    ) -> dict[str, Any]:
        try:
            if self._concern and not command.keys() & _READS:
                command = {**command, "writeConcern": self._concern}
            return await self._connected()[database].command(command)
        except OperationFailure as error:
            if error.code == _USER_NOT_FOUND and "dropUser" in command:
                raise _NoSuchUserError from None
            away = error.code == _AUTHENTICATION_FAILED
            raise self._told(Kind.UNAVAILABLE if away else Kind.INVALID, error, hide) from None
        except (ConfigurationError, InvalidURI, ValueError):
            raise invalid("connection_url: is not one that MongoDB takes") from None
        except (ConnectionFailure, OSError) as error:
            raise self._told(Kind.UNAVAILABLE, error, hide) from None
        except PyMongoError as error:
            raise self._told(Kind.INVALID, error, hide) from None

    def _connected(self) -> "AsyncMongoClient[dict[str, Any]]":
        """Returns the client, made when it is first needed: it wants a running event loop."""
        if self._client is None:
            url = self._details.url
            for name, value in (
                ("username", self._details.username),
                ("password", self._details.password),
            ):
                shown = value if self._details.flag("disable_escaping") else quote_plus(value)
                url = url.replace(f"{{{{{name}}}}}", shown)
            milliseconds = int(details.CONNECT_SECONDS * 1000)
            limits = self._details.limits
            self._client = AsyncMongoClient(
                url,
                maxPoolSize=limits.most,
                maxIdleTimeMS=limits.lifetime * 1000 or None,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=int(details.CALL_SECONDS * 1000),
                **self._files(),
            )
        return self._client

    def _files(self) -> dict[str, Any]:
        """Writes what the client library reads from files alone; they go with the driver."""
        names = {"tls_ca": "tlsCAFile", "tls_certificate_key": "tlsCertificateKeyFile"}
        given = {option: self._details.text(name) for name, option in names.items()}
        files: dict[str, Any] = {}
        for option, content in given.items():
            if content:
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="strongroom-")
                path = Path(self._folder.name) / option
                path.touch(mode=0o600)
                path.write_text(content)
                files |= {option: str(path), "tls": True}
        return files

    def _told(self, kind: Kind, error: Exception, hide: str) -> ServiceError:
        text = (
            error.details.get("errmsg")
            if isinstance(error, OperationFailure) and error.details
            else ""
        )
        return ServiceError(kind, self._details.scrub(str(text or error), hide))


class _NoSuchUserError(Exception):
    """The database has no user of that name."""


def _password(credential: Credential) -> str:
    if not isinstance(credential, Password):
        raise invalid("credential_type: this plugin_name takes password or client_certificate")
    return credential.password


def _json(text: str, field: str) -> dict[str, Any]:
    if not text:
        return {}
    for form in (text, base64_text(text) or ""):
        try:
            found = json.loads(form)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise invalid(f"{field}: must be a JSON object")

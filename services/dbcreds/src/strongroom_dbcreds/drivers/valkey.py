"""Redis and Valkey: users of their access control lists, through redis-py.

Statements are rules of `ACL SETUSER`, as Vault has it: a JSON list such as ["~app:*", "+@read"], or texts of rules.
"""

import datetime
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as SlowError

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import Credential, Driver, NewUser, Password, reach
from strongroom_dbcreds.drivers.tls import context
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError, invalid

_KNOWN = ("host", "port", "tls", "insecure_tls", "ca_cert", "tls_ca")
_USUAL = ("~*", "+@read")
# Rules that would give the user another password than its own, or none.
_NO_RULES = (">", "<", "#", "!")
_NO_WORDS = frozenset({"nopass", "resetpass", "reset", "off", "clearselectors"})


def driver(connection: Connection) -> Driver:
    """Returns a driver for a connection.

    Raises:
        ServiceError: INVALID.
    """
    return ValkeyDriver(connection)


class ValkeyDriver:
    """Implements `Driver`."""

    def __init__(self, connection: Connection) -> None:
        self._details = details.read(connection.details, _KNOWN, url=False)
        if not self._details.text("host"):
            raise invalid("host: must be given")
        limits = self._details.limits
        fields: dict[str, Any] = {
            "host": self._details.text("host"),
            "port": int(self._details.given.get("port") or 6379),
            "username": self._details.username or None,
            "password": self._details.password or None,
            "socket_timeout": details.CALL_SECONDS,
            "socket_connect_timeout": details.CONNECT_SECONDS,
            "decode_responses": True,
        }
        tls = context(
            self._details,
            on=self._details.flag("tls"),
            verify=not self._details.flag("insecure_tls"),
            ca="ca_cert" if self._details.text("ca_cert") else "tls_ca",
        )
        if tls is not None:
            fields |= _tls_fields(self._details)
        self._client = Redis(
            connection_pool=BlockingConnectionPool(
                max_connections=limits.most,
                timeout=int(details.CONNECT_SECONDS),
                **fields,
            )
        )

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        try:
            await self._client.execute_command("PING")  # type: ignore[no-untyped-call]
        except NoPermissionError:
            return  # it has logged in
        except (RedisError, OSError) as error:
            raise self._told(Kind.UNAVAILABLE, error, "") from None

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        """Returns whether there is a user."""
        return await self._call("ACL", "GETUSER", username) is not None

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        """Makes a user with the role's rules."""
        password = _password(user.credential)
        await reach(self)
        await self._call(
            "ACL", "SETUSER", user.username, "reset", "on", f">{password}", *_rules(statements),
            hide=password,
        )  # fmt: skip

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        """Does nothing: the database knows no end of users."""

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user; the database ends its sessions."""
        await self._call("ACL", "DELUSER", username)

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        """Replaces a user's password."""
        password = _password(credential)
        if not await self.has_user((), username):
            raise invalid("username: the database has no such user")
        await self._call("ACL", "SETUSER", username, "resetpass", f">{password}", hide=password)

    async def close(self) -> None:
        """Closes what is open."""
        await self._client.aclose(close_connection_pool=True)

    async def _call(self, *command: str, hide: str = "") -> Any:
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except (LostError, SlowError, OSError) as error:
            raise self._told(Kind.UNAVAILABLE, error, hide) from None
        except ResponseError as error:
            raise self._told(Kind.INVALID, error, hide) from None
        except RedisError as error:
            raise self._told(Kind.UNAVAILABLE, error, hide) from None

    def _told(self, kind: Kind, error: Exception, hide: str) -> ServiceError:
        return ServiceError(kind, self._details.scrub(str(error) or type(error).__name__, hide))


def _rules(statements: Sequence[str]) -> list[str]:
    """Returns the rules of a role.

    Raises:
        ServiceError: INVALID where one would change how the user logs in.
    """
    rules = [word for text in templates.texts(statements) for word in text.split()] or list(_USUAL)
    for rule in rules:
        if rule.startswith(_NO_RULES) or rule.lower() in _NO_WORDS:
            raise invalid(
                "creation_statements: must not set passwords, reset or switch off the user"
            )
    return rules


def _password(credential: Credential) -> str:
    if not isinstance(credential, Password):
        raise invalid("credential_type: this plugin_name takes password")
    return credential.password


def _tls_fields(known: details.Details) -> dict[str, Any]:
    insecure = known.flag("insecure_tls")
    return {
        "connection_class": SSLConnection,
        "ssl_ca_data": known.text("ca_cert") or known.text("tls_ca") or None,
        "ssl_cert_reqs": "none" if insecure else "required",
        "ssl_check_hostname": not insecure,
    }

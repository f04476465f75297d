"""What the drivers read of a connection's details, and what may be told of an error."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from strongroom_dbcreds.drivers import urls
from strongroom_runtime.errors import invalid

_OPEN = 4
_COMMON = frozenset(
    {
        "username",
        "password",
        "username_template",
        "max_open_connections",
        "max_idle_connections",
        "max_connection_lifetime",
    }
)
SECRETS = ("password", "private_key", "tls_certificate_key")

_LONGEST_TEXT = 1000
_SHORTEST_PART = 3

CONNECT_SECONDS = 10.0  # for one connection, and for a place in the pool
CALL_SECONDS = 60.0  # for all that one call of a driver does


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be. A lifetime of 0 is for ever."""

    most: int
    idle: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class Details:
    """A connection's details, checked.

    Args:
        url: the address, with {{username}} and {{password}} where those belong.
        username: the user that makes users.
        password: its password.
        limits: of the pool.
        given: everything, by the names of the contract.
    """

    url: str
    username: str
    password: str
    limits: Limits
    given: Mapping[str, Any] = field(repr=False)

    def text(self, name: str) -> str:
        """Returns a detail; empty where it is not given."""
        return str(self.given.get(name) or "")

    def flag(self, name: str) -> bool:
        """Returns a detail that is true or false."""
        return bool(self.given.get(name))

    def placed(self, text: str) -> str:
        """Returns part of a parsed URL with user name and password in it, which cannot change its shape any more.

        With `disable_escaping` they are percent-encoded as they come, and are decoded here.
        """

        def value(match: re.Match[str]) -> str:
            known = self.username if match[1] == "username" else self.password
            return unquote(known) if self.flag("disable_escaping") else known

        # In one pass: a name may look like a placeholder.
        return re.sub(r"\{\{(username|password)\}\}", value, text)

    def scrub(self, text: str, *hidden: str) -> str:
        """Returns a text without passwords and keys, in whatever form they stand in it, and bounded.

        Args:
            text: what a database or its library says.
            hidden: secrets that are made or given for the call, of which not even parts are told.
        """
        secrets = [*hidden, *(self.text(name) for name in SECRETS)]
        for literal in urls.passwords(self.url):
            secrets += [literal, unquote(literal)]
        for secret in sorted((each for each in secrets if each), key=len, reverse=True):
            for form in (secret, quote(secret, ""), quote_plus(secret), secret.replace("'", "''")):
                text = text.replace(form, "***")
        if len(text) > _LONGEST_TEXT:
            # It is kept in records, and goes into answers.
            text = text[:_LONGEST_TEXT] + "…"
        for secret in hidden:
            text = _without_parts(text, secret)
        return text


def _without_parts(text: str, secret: str) -> str:
    """Returns a text without parts of a secret: a database may cut what it repeats of a statement."""
    kept, start = [], 0
    while start < len(text):
        end = start
        while end < len(text) and text[start : end + 1] in secret:
            end += 1
        part = end - start >= _SHORTEST_PART
        kept.append("***" if part else text[start])
        start = end if part else start + 1
    return "".join(kept)


def read(details: Mapping[str, Any], known: Iterable[str], *, url: bool = True) -> Details:
    """Returns the details of a connection.

    Args:
        details: by the names of the contract.
        known: what the driver knows beside user, password and limits.
        url: whether `connection_url` must be there.

    Raises:
        ServiceError: INVALID where one is unknown, missing or out of range.
    """
    for name, value in sorted((name, value) for name, value in details.items() if value):
        if name not in _COMMON and name not in known:
            raise invalid(f"{name}: this plugin_name does not take it")
        if isinstance(value, str) and "\0" in value:
            raise invalid(f"{name}: must not have a NUL character")
    if url and not details.get("connection_url"):
        raise invalid("connection_url: must be given")
    most = int(details.get("max_open_connections") or 0)
    idle = int(details.get("max_idle_connections") or 0)
    most = most if most > 0 else _OPEN
    return Details(
        str(details.get("connection_url") or ""),
        str(details.get("username") or ""),
        str(details.get("password") or ""),
        Limits(
            most,
            min(idle, most) if idle > 0 else most if idle == 0 else 0,
            max(int(details.get("max_connection_lifetime") or 0), 0),
        ),
        details,
    )

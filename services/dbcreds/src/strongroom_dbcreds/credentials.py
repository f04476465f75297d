"""Names of users, and what they log in with."""

import secrets
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from strongroom_dbcreds.drivers.base import Credential, Password
from strongroom_dbcreds.records import Connection, Role
from strongroom_runtime.errors import invalid

_LETTERS = string.ascii_letters + string.digits
_LONGEST_NAME = 63  # of PostgreSQL's identifiers


@dataclass(frozen=True, slots=True)
class Made:
    """A user's name and what it logs in with.

    Args:
        username: the name.
        credential: what the database is told.
        secrets: what the client is told, by the fields of the contract's `CreateCredentialsResponse`.
    """

    username: str
    credential: Credential
    secrets: Mapping[str, str] = field(repr=False)


async def make(connection: Connection, role: Role, role_name: str, display_name: str) -> Made:
    """Returns a new user of a role.

    Raises:
        ServiceError: INVALID where a template, a policy or the role's credential_config does not allow one.
    """
    if role.credential_type != "password":
        raise invalid("credential_type: takes password")
    username = "-".join(
        ("v", display_name[:8], role_name[:8], random_text(20), str(int(time.time())))
    )[:_LONGEST_NAME]
    password = random_text(20)
    return Made(username, Password(password), {"password": password})


def random_text(length: int) -> str:
    """Returns random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))

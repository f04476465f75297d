"""Names of users, and what they log in with."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from strongroom_dbcreds.domain import keys, usernames
from strongroom_dbcreds.domain.usernames import Known
from strongroom_dbcreds.drivers import CREDENTIAL_TYPES, NAMED_BY_SUBJECT, urls
from strongroom_dbcreds.drivers.base import ClientCertificate, Credential, Password, RsaPublicKey
from strongroom_dbcreds.policies import PasswordPolicies
from strongroom_dbcreds.records import Connection, Role
from strongroom_runtime.errors import invalid

TYPES = ("password", "rsa_private_key", "client_certificate")
STATIC_TYPES = TYPES[:2]
_TEMPLATES = {
    "mysql-database-plugin": "mysql",
    "mysql-aurora-database-plugin": "mysql-legacy",
    "mysql-rds-database-plugin": "mysql-legacy",
    "mysql-legacy-database-plugin": "mysql-legacy",
    "mongodb-database-plugin": "mongodb",
    "vault-plugin-database-oracle": "oracle",
    "redis-database-plugin": "valkey",
    "valkey-database-plugin": "valkey",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A user's name and what it logs in with.

    Args:
        username: the name.
        credential: what the database is told.
        secrets: what the client is told, by the fields of the contract's `CreateCredentialsResponse`.
        chosen: an operator's template made the name, which may be that of another user.
    """

    username: str
    credential: Credential
    secrets: Mapping[str, str] = field(repr=False)
    chosen: bool


class Credentials:
    """Makes names and credentials.

    Args:
        policies: by which passwords are made.
    """

    def __init__(self, policies: PasswordPolicies) -> None:
        self._policies = policies

    async def make(self, connection: Connection, role: Role, known: Known, expires: float) -> Made:
        """Returns a new user of a role.

        Args:
            connection: in whose database it will be.
            role: of the user.
            known: what templates can ask for.
            expires: until when a certificate is valid, in seconds since 1970.

        Raises:
            ServiceError: INVALID where a template, a policy or the role's credential_config does not allow one.
        """
        check_possible(connection, role.credential_type)
        username = usernames.render(template_of(connection), known)
        chosen = bool(connection.details.get("username_template"))
        if role.credential_type == "client_certificate":
            issuing = keys.check_certificate(role.credential_config)
            common_name = username
            if issuing.template:
                common_name = usernames.render(issuing.template, known)
            made = await asyncio.to_thread(
                keys.certificate, issuing, common_name, known.now, expires
            )
            told = {
                "client_certificate": made.certificate,
                "private_key": made.private_key,
                "private_key_type": made.key_type,
            }
            if connection.plugin in NAMED_BY_SUBJECT:
                username, chosen = made.subject, chosen or bool(issuing.template)
            return Made(username, ClientCertificate(made.subject, common_name), told, chosen)
        secrets = await self.secrets(connection, role.credential_type, role.credential_config)
        return Made(username, credential(secrets), secrets, chosen)

    async def secrets(
        self, connection: Connection, credential_type: str, config: Mapping[str, str]
    ) -> dict[str, str]:
        """Returns a new password or key, by the fields of the contract; raises as `make`."""
        check_possible(connection, credential_type)
        if credential_type == "rsa_private_key":
            return {
                "rsa_private_key": await asyncio.to_thread(keys.rsa_key, keys.check_rsa(config))
            }
        policy = config.get("password_policy") or connection.password_policy
        return {"password": await self._policies.generate(policy)}


def check(credential_type: str, config: Mapping[str, str], types: tuple[str, ...] = TYPES) -> None:
    """Raises where a role's credentials cannot be made.

    Raises:
        ServiceError: INVALID.
    """
    if credential_type not in types:
        raise invalid(f"credential_type: takes one of {', '.join(types)}")
    if credential_type == "rsa_private_key":
        keys.check_rsa(config)
    elif credential_type == "client_certificate":
        issuing = keys.check_certificate(config)
        if issuing.template:
            usernames.render(issuing.template, Known("token", "role", 0.0))
    elif unknown := config.keys() - {"password_policy"}:
        raise invalid(f"credential_config: takes password_policy, not {sorted(unknown)[0][:40]}")


def check_possible(connection: Connection, credential_type: str) -> None:
    """Raises where a database knows no users with such credentials.

    Raises:
        ServiceError: INVALID.
    """
    possible = CREDENTIAL_TYPES.get(connection.plugin, TYPES)
    if credential_type not in possible:
        raise invalid(
            f"credential_type: users of {connection.plugin} log in with {' or '.join(possible)}, "
            f"not with {credential_type}"
        )


def check_rotatable(connection: Connection) -> None:
    """Raises where a new password would change nothing, since the URL has one of its own.

    Raises:
        ServiceError: INVALID.
    """
    if urls.passwords(str(connection.details.get("connection_url", ""))):
        raise invalid(
            "connection_url: has a password in it, which cannot be rotated; write {{password}} in its place"
        )


def shown(config: Mapping[str, str]) -> dict[str, str]:
    """Returns what may be told of a credential_config: all but keys."""
    return {name: value for name, value in config.items() if name != "ca_private_key"}


def template_of(connection: Connection) -> str:
    """Returns the template of the names of a connection's users."""
    given = connection.details.get("username_template")
    return str(given or usernames.DEFAULTS[_TEMPLATES.get(connection.plugin, "postgresql")])


def credential(secrets: Mapping[str, str]) -> Credential:
    """Returns what a database is told of a password or key."""
    if "rsa_private_key" in secrets:
        return RsaPublicKey(keys.rsa_public(secrets["rsa_private_key"]))
    return Password(secrets["password"])

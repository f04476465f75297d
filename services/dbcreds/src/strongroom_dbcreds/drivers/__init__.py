"""Drivers for databases, by the names that Vault gives its plugins."""

import importlib
from collections.abc import Mapping

from strongroom_dbcreds.drivers.base import Driver, Factory
from strongroom_dbcreds.records import Connection


def _by(name: str) -> Factory:
    """Returns a driver's factory. The client library behind it is loaded with the first connection that needs it."""

    def factory(connection: Connection) -> Driver:
        made: Factory = importlib.import_module(f"{__name__}.{name}").driver
        return made(connection)

    return factory


_MYSQL, _VALKEY = _by("mysql"), _by("valkey")

PLUGINS: Mapping[str, Factory] = {
    "postgresql-database-plugin": _by("postgresql"),
    "mysql-database-plugin": _MYSQL,
    "mysql-aurora-database-plugin": _MYSQL,
    "mysql-rds-database-plugin": _MYSQL,
    "mysql-legacy-database-plugin": _MYSQL,
    "mongodb-database-plugin": _by("mongodb"),
    "vault-plugin-database-oracle": _by("oracle"),
    "redis-database-plugin": _VALKEY,
    "valkey-database-plugin": _VALKEY,
}

_PASSWORD, _CERTIFICATE = "password", "client_certificate"

# What users of a database can log in with, where it is not everything.
CREDENTIAL_TYPES: Mapping[str, tuple[str, ...]] = {
    "postgresql-database-plugin": (_PASSWORD, _CERTIFICATE),
    "mysql-database-plugin": (_PASSWORD, _CERTIFICATE),
    "mysql-aurora-database-plugin": (_PASSWORD, _CERTIFICATE),
    "mysql-rds-database-plugin": (_PASSWORD, _CERTIFICATE),
    "mysql-legacy-database-plugin": (_PASSWORD, _CERTIFICATE),
    "mongodb-database-plugin": (_PASSWORD, _CERTIFICATE),
    "vault-plugin-database-oracle": (_PASSWORD,),
    "redis-database-plugin": (_PASSWORD,),
    "valkey-database-plugin": (_PASSWORD,),
}

# Where the user of a client certificate has the certificate's subject as its name.
NAMED_BY_SUBJECT = frozenset({"mongodb-database-plugin"})

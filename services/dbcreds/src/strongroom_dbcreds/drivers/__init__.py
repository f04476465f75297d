"""Drivers for databases, by the names that Vault gives its plugins."""

from collections.abc import Mapping

from strongroom_dbcreds.drivers import mongodb, mysql, oracle, postgresql, valkey
from strongroom_dbcreds.drivers.base import Factory

PLUGINS: Mapping[str, Factory] = {
    "postgresql-database-plugin": postgresql.driver,
    "mysql-database-plugin": mysql.driver,
    "mysql-aurora-database-plugin": mysql.driver,
    "mysql-rds-database-plugin": mysql.driver,
    "mysql-legacy-database-plugin": mysql.driver,
    "mongodb-database-plugin": mongodb.driver,
    "vault-plugin-database-oracle": oracle.driver,
    "redis-database-plugin": valkey.driver,
    "valkey-database-plugin": valkey.driver,
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

"""Drivers for databases, by the names that Vault gives its plugins."""

from collections.abc import Mapping

from strongroom_dbcreds.drivers import mongodb, mysql, postgresql, valkey
from strongroom_dbcreds.drivers.base import Factory

PLUGINS: Mapping[str, Factory] = {
    "postgresql-database-plugin": postgresql.driver,
    "mysql-database-plugin": mysql.driver,
    "mysql-aurora-database-plugin": mysql.driver,
    "mysql-rds-database-plugin": mysql.driver,
    "mysql-legacy-database-plugin": mysql.driver,
    "mongodb-database-plugin": mongodb.driver,
    "redis-database-plugin": valkey.driver,
    "valkey-database-plugin": valkey.driver,
}

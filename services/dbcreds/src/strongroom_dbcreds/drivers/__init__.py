"""Drivers for databases, by the names that Vault gives its plugins."""

from collections.abc import Mapping

from strongroom_dbcreds.drivers import postgresql
from strongroom_dbcreds.drivers.base import Factory

PLUGINS: Mapping[str, Factory] = {"postgresql-database-plugin": postgresql.driver}

"""Drivers for databases, by the names that Vault gives its plugins."""

from collections.abc import Mapping

from strongroom_dbcreds.drivers.base import Factory

PLUGINS: Mapping[str, Factory] = {}

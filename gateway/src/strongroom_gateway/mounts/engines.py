"""What can be mounted, and who removes what a mount leaves behind."""

from dataclasses import dataclass

from google.protobuf.message import Message

from strongroom.auth.v1 import gate_pb2
from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import cubbyhole_pb2
from strongroom.transit.v1 import key_pb2


@dataclass(frozen=True, slots=True)
class Ending:
    """Ends what a mount gave under earlier paths than the one it has now. It may be repeated.

    Args:
        method: of the engine's service.
        request: its message, with `mount_uuid`, `path` and `moves`.
    """

    method: str
    request: type[Message]


@dataclass(frozen=True, slots=True)
class Engine:
    """One type of mount.

    Args:
        service: who answers its requests.
        drop: the method that removes the data of a mount. It may be repeated.
        request: its message, with a `mount_uuid`.
        moved: ends what a mount gave under earlier paths; None for those that give nothing.
    """

    service: str
    drop: str
    request: type[Message]
    moved: Ending | None = None


_LOGIN = Engine(
    "auth",
    "/strongroom.auth.v1.TokenGateService/DropMount",
    gate_pb2.DropMountRequest,
    Ending("/strongroom.auth.v1.TokenGateService/EndMovedTokens", gate_pb2.EndMovedTokensRequest),
)

SECRETS: dict[str, Engine] = {
    "database": Engine(
        "dbcreds",
        "/strongroom.dbcreds.v1.LeaseLifecycleService/DropMount",
        lease_pb2.DropMountRequest,
        Ending(
            "/strongroom.dbcreds.v1.LeaseLifecycleService/EndMovedLeases",
            lease_pb2.EndMovedLeasesRequest,
        ),
    ),
    "kv": Engine(
        "kv", "/strongroom.kv.v1.KvLifecycleService/DropMount", cubbyhole_pb2.DropMountRequest
    ),
    "transit": Engine(
        "transit",
        "/strongroom.transit.v1.TransitLifecycleService/DropMount",
        key_pb2.DropMountRequest,
    ),
}

# What a mount of type database can connect to; dbcreds has their drivers.
DATABASES = (
    "mongodb-database-plugin",
    "mysql-aurora-database-plugin",
    "mysql-database-plugin",
    "mysql-legacy-database-plugin",
    "mysql-rds-database-plugin",
    "postgresql-database-plugin",
    "redis-database-plugin",
    "valkey-database-plugin",
    "vault-plugin-database-oracle",
)

LOGINS: dict[str, Engine] = {"approle": _LOGIN, "userpass": _LOGIN}

"""What is stored of connections, roles and quotas."""

from typing import Any

import msgspec


class Connection(msgspec.Struct, frozen=True):
    """A database in which users are made.

    Args:
        plugin: the kind of database, as `drivers.PLUGINS` names it.
        details: how it is reached, by the names of the contract's `ConnectionDetails`; secrets among them.
        allowed_roles: the roles that may use it; `*` for all.
        root_statements: change the password of the connection's own user.
        password_policy: by which passwords are made.
        verify: whether a write logs in first.
        generation: changes when what replicas have open is to be closed.
    """

    plugin: str
    details: dict[str, Any] = {}
    allowed_roles: tuple[str, ...] = ()
    root_statements: tuple[str, ...] = ()
    password_policy: str = ""
    verify: bool = True
    generation: int = 0

    def __repr__(self) -> str:
        return f"Connection({self.plugin})"

    def allows(self, role: str) -> bool:
        """Whether a role may use it."""
        return "*" in self.allowed_roles or role in self.allowed_roles


class Role(msgspec.Struct, frozen=True):
    """A role by which users are made. Spans in seconds, 0 for what the mount or the configuration says."""

    database: str
    creation: tuple[str, ...] = ()
    revocation: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()
    default_ttl: int = 0
    max_ttl: int = 0
    credential_type: str = "password"
    credential_config: dict[str, str] = {}
    revocation_timeout: int = 0
    retry_interval: int = 0
    irrevocable_after: int = 0


class Quota(msgspec.Struct, frozen=True):
    """A bound on the number of leases. `path` is a mount's, with a slash at its end; empty for all."""

    path: str
    role: str
    most: int

"""What is stored of connections, roles and quotas."""

from typing import Any

import msgspec

from strongroom_dbcreds.domain.rotations import Account, Plan
from strongroom_runtime.globs import matches_any


class Connection(msgspec.Struct, frozen=True):
    """A database in which users are made.

    Args:
        plugin: the kind of database, as `drivers.PLUGINS` names it.
        details: how it is reached, by the names of the contract's `ConnectionDetails`; secrets among them.
        allowed_roles: the roles that may use it, in which `*` stands for any characters.
        root_statements: change the password of the connection's own user.
        password_policy: by which passwords are made.
        verify: whether a write logs in first.
        generation: changes when what replicas have open is to be closed.
        plan: when the password of the connection's own user is changed.
        automated: whether the plan is kept.
        account: how that stands; what it logs in with is in `details`.
    """

    plugin: str
    details: dict[str, Any] = {}
    allowed_roles: tuple[str, ...] = ()
    root_statements: tuple[str, ...] = ()
    password_policy: str = ""
    verify: bool = True
    generation: int = 0
    plan: Plan = Plan()
    automated: bool = True
    account: Account = Account()

    def __repr__(self) -> str:
        return f"Connection({self.plugin})"

    def allows(self, role: str) -> bool:
        """Whether a role may use it."""
        return matches_any(role, self.allowed_roles)


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


class StaticRole(msgspec.Struct, frozen=True):
    """A user that exists already, and whose password is changed again and again.

    Args:
        database: the connection of its database.
        username: its name.
        statements: change what it logs in with; empty for the driver's.
        plan: when.
        credential_type: password or rsa_private_key.
        credential_config: how that is made.
        self_managed: the user changes it itself.
        skip_import: the first change was left to the plan.
        account: how it stands.
    """

    database: str
    username: str
    statements: tuple[str, ...] = ()
    plan: Plan = Plan()
    credential_type: str = "password"
    credential_config: dict[str, str] = {}
    self_managed: bool = False
    skip_import: bool = False
    account: Account = Account()


class Quota(msgspec.Struct, frozen=True):
    """A bound on the number of leases. `path` is a mount's, with a slash at its end; empty for all."""

    path: str
    role: str
    most: int

"""Which quota is for a request (Vault documentation, "Resource quotas", section on precedence)."""

from collections.abc import Mapping

import msgspec


class RateLimit(msgspec.Struct, frozen=True):
    """A rate-limit quota.

    Args:
        path: what it is for, as it was given.
        mount: the mount's identity, which stays when the mount is moved; empty for every mount.
        suffix: a path below the mount, which may end with *; empty for the whole mount.
        rate: how many requests an address has in an interval.
        interval: seconds.
        block: seconds for which an address that asked too often is refused; 0 for until the interval is over.
        role: the role whose logins it is for; empty for all.
        inheritable: kept for clients that read it.
    """

    path: str
    mount: str
    suffix: str
    rate: float
    interval: int = 1
    block: int = 0
    role: str = ""
    inheritable: bool = False

    def same_target(self, other: "RateLimit") -> bool:
        """Whether two are for the same requests."""
        return (self.mount, self.suffix, self.role) == (other.mount, other.suffix, other.role)


class Selection:
    """All quotas, ready to find the one that counts a request: the most specific, and only that."""

    def __init__(self, limits: Mapping[str, RateLimit]) -> None:
        self._everything: tuple[str, RateLimit] | None = None
        self._mounts: dict[str, list[tuple[str, RateLimit]]] = {}
        for name, limit in limits.items():
            if limit.mount:
                self._mounts.setdefault(limit.mount, []).append((name, limit))
            else:
                self._everything = (name, limit)

    @property
    def empty(self) -> bool:
        """Whether there are no quotas."""
        return not self._mounts and self._everything is None

    def has_roles(self, mount: str) -> bool:
        """Whether a quota of a mount is for a role."""
        return any(limit.role for _, limit in self._mounts.get(mount, ()))

    def find(self, mount: str, relative: str, role: str) -> tuple[str, RateLimit] | None:
        """Returns the quota that counts a request, with its name.

        Args:
            mount: identity of the mount; empty where the request leads to none.
            relative: the path below it.
            role: of a login; empty where there is none, or nobody asks.
        """
        best, found = 0, self._everything
        for name, limit in self._mounts.get(mount, ()):
            weight = _weight(limit, relative, role)
            if weight > best:
                best, found = weight, (name, limit)
        return found


def exempt(path: str, patterns: tuple[str, ...]) -> bool:
    """Returns whether a path is one of some patterns; one that ends with * stands for all that begin with it."""
    return any(
        path.startswith(each[:-1]) if each.endswith("*") else path.rstrip("/") == each.rstrip("/")
        for each in patterns
    )


def _weight(limit: RateLimit, relative: str, role: str) -> int:
    """Returns how specific a quota of a mount is for a request; 0 where it is not for it."""
    if limit.role:
        return 1_000_000 if limit.role == role else 0
    if not limit.suffix:
        return 1
    if not exempt(relative, (limit.suffix,)):
        return 0
    # Every whole path is more specific than any that ends with *, and a longer one of these more than a shorter.
    return len(limit.suffix) + (1 if limit.suffix.endswith("*") else 100_000)

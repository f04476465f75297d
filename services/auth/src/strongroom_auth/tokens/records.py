"""What is stored of tokens."""

import msgspec


class Token(msgspec.Struct, frozen=True):
    """One token. Its text is not here: `id` is the text's HMAC.

    Args:
        id: storage identity, hexadecimal.
        accessor: handle.
        policies: names, cleaned.
        created: wall time.
        expires: wall time; 0 for never.
        ttl: what it was made for, in seconds; 0 for ever.
        ancestors: ids, the eldest first; empty for an orphan.
        severed: revoked alone; the record stands only so that the children live.
        uses: how often it can still be used; 0 without limit.
        used_up: its last use was begun, and it is over with that.
        had_until: when it would have been over otherwise; wall time, 0 for never.
        login: the login method and role that made it, to be asked at renewal.
    """

    id: str
    accessor: str
    policies: tuple[str, ...]
    created: float
    expires: float = 0.0
    ttl: int = 0
    path: str = ""
    meta: dict[str, str] = {}
    display_name: str = "token"
    ancestors: tuple[str, ...] = ()
    severed: bool = False
    uses: int = 0
    used_up: bool = False
    renewable: bool = True
    explicit_max: int = 0
    period: int = 0
    longest: int = 0
    role: str = ""
    cidrs: tuple[str, ...] = ()
    entity: str = ""
    mount: str = ""
    renewed: float = 0.0
    login: dict[str, str] = {}
    had_until: float = 0.0

    @property
    def parent(self) -> str:
        """The parent's id; empty for an orphan."""
        return self.ancestors[-1] if self.ancestors else ""

    @property
    def shown_expires(self) -> float:
        """When it is over as clients are told, also by an answer to its last use."""
        return self.had_until if self.used_up else self.expires

    @property
    def granted(self) -> int:
        """How long it was to live when it was made or renewed last, in seconds; 0 for ever."""
        return round(self.expires - (self.renewed or self.created)) if self.expires else 0

    @property
    def root(self) -> bool:
        """Whether it holds the root policy."""
        return "root" in self.policies

    def alive(self, now: float) -> bool:
        """Whether it may be used, as far as it alone tells."""
        return not self.severed and not self.used_up and (not self.expires or now < self.expires)


class TokenRole(msgspec.Struct, frozen=True):
    """A role by which tokens are made.

    Args:
        old: names of settings that were written last by their older names.
        aliases: names of entities; None where none were ever given.
    """

    allowed: tuple[str, ...] = ()
    allowed_globs: tuple[str, ...] = ()
    disallowed: tuple[str, ...] = ()
    disallowed_globs: tuple[str, ...] = ()
    orphan: bool = False
    renewable: bool = True
    path_suffix: str = ""
    cidrs: tuple[str, ...] = ()
    explicit_max: int = 0
    no_default: bool = False
    uses: int = 0
    period: int = 0
    type: str = "default-service"
    strict_ip: bool = False
    old: tuple[str, ...] = ()
    aliases: tuple[str, ...] | None = None

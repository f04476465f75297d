"""What a lease is, and what becomes of it. All times are of the shared clock, in seconds since 1970.

CREATING    its user may exist, or be about to; not handed out
ACTIVE      handed out
REVOKING    has ended; its user is being removed, or will be
GHOST       has ended while its user was being made, and the user is removed; removed once more later, in case the
            database was slower than whoever gave up. Stands in no list and in no count.
"""

import enum

import msgspec


class State(enum.Enum):
    """Where a lease stands."""

    CREATING = "creating"
    ACTIVE = "active"
    REVOKING = "revoking"
    GHOST = "ghost"


class Lease(msgspec.Struct, frozen=True):
    """One lease.

    Args:
        id: what clients know it by: the path that gave it, a slash, and `key`.
        key: its random part.
        mount: the uuid of its mount.
        role: by which its user was made.
        database: the connection in which its user is.
        username: its user.
        token: the storage identity of the token that obtained it.
        state: where it stands.
        issued: when it was asked for.
        expires: when it ends.
        due: when something is to be done: what its entry in the index of due leases says.
        longest: what the mount allowed at the most when it was given, in seconds from `issued`.
        renewed: when it was last renewed; 0 for never.
        reserved: no other lease of the connection may have a user of the same name.
        given: it was handed out, or may have been.
        unmade: it ended before its creation was known to be over.
        revocation: statements for the case that the role is no more.
        timeout: how long one attempt to revoke it may take.
        retry_interval: the longest wait between attempts.
        irrevocable_after: after how many seconds of failing it is shown as irrevocable.
        attempts: failed attempts to revoke it.
        failing_since: when the first of them was; 0 for none.
        error: what came of the last.
        away: the last failed because the database could not be reached.
        claim: the replica that revokes it now; empty for none.
        claimed_until: until when it may.
    """

    id: str
    key: str
    mount: str
    role: str
    database: str
    username: str
    token: str
    state: State
    issued: float
    expires: float
    due: float
    longest: int
    renewed: float = 0.0
    reserved: bool = False
    given: bool = False
    unmade: bool = False
    revocation: tuple[str, ...] = ()
    timeout: int = 30
    retry_interval: int = 300
    irrevocable_after: int = 86_400
    attempts: int = 0
    failing_since: float = 0.0
    error: str = ""
    away: bool = False
    claim: str = ""
    claimed_until: float = 0.0

    @property
    def path(self) -> str:
        """The path that gave it."""
        return self.id.rpartition("/")[0]

    def alive(self, now: float) -> bool:
        """Whether it can be used."""
        return self.state is State.ACTIVE and now < self.expires

    def claimed(self, now: float) -> bool:
        """Whether some replica revokes it at the moment."""
        return bool(self.claim) and now < self.claimed_until

    def irrevocable(self, now: float) -> bool:
        """Whether it has been failing for longer than its role allows."""
        return bool(self.failing_since) and now - self.failing_since >= self.irrevocable_after


def activated(lease: Lease) -> Lease:
    """Returns a lease whose user exists."""
    return msgspec.structs.replace(lease, state=State.ACTIVE, due=lease.expires, given=True)


def ended(lease: Lease, now: float) -> Lease:
    """Returns a lease that is to be revoked at once; itself where it is already."""
    if lease.state in (State.REVOKING, State.GHOST):
        return lease
    unmade = lease.state is State.CREATING
    return msgspec.structs.replace(lease, state=State.REVOKING, due=now, unmade=unmade)


def claimed(lease: Lease, by: str, now: float, seconds: float) -> Lease:
    """Returns a lease that one replica has to itself for a while, in order to revoke it."""
    until = now + seconds
    return msgspec.structs.replace(ended(lease, now), claim=by, claimed_until=until, due=until)


def failed(
    lease: Lease, error: str, now: float, first: float, jitter: float, *, away: bool
) -> Lease:
    """Returns a lease that could not be revoked, to be tried again after a wait that doubles each time.

    Args:
        lease: the lease.
        error: why.
        now: the time.
        first: the wait after the first failure.
        jitter: from 0 to 1; up to half of the wait is taken off, so that leases that failed together part.
        away: the database could not be reached.
    """
    wait = min(first * 2.0 ** min(lease.attempts, 30), float(lease.retry_interval))
    return msgspec.structs.replace(
        lease,
        attempts=lease.attempts + 1,
        failing_since=lease.failing_since or now,
        error=error,
        away=away,
        due=now + wait * (1 - jitter / 2),
        claim="",
        claimed_until=0.0,
    )


def postponed(lease: Lease, error: str, now: float, seconds: float) -> Lease:
    """Returns a lease whose database is known to be away: not tried, so that it does not wait longer than others."""
    return msgspec.structs.replace(
        lease,
        failing_since=lease.failing_since or now,
        error=error,
        away=True,
        due=now + seconds,
        claim="",
        claimed_until=0.0,
    )


def dropped(lease: Lease, now: float, creation: float, aftercheck: float) -> Lease | None:
    """Returns what is left of a lease whose user was removed; None for nothing.

    Args:
        lease: the lease.
        now: the time.
        creation: how long making a user may take.
        aftercheck: after which further time it is removed once more.
    """
    certain = lease.issued + creation + aftercheck
    if not lease.unmade or now >= certain:
        return None
    return msgspec.structs.replace(
        lease,
        state=State.GHOST,
        due=certain if now >= lease.issued + creation else lease.issued + creation,
        attempts=0,
        failing_since=0.0,
        error="",
        claim="",
        claimed_until=0.0,
    )

"""The dbcreds service's configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set. Spans are in seconds.

    Args:
        clock_seconds: how long to wait, at the start, for another replica to say what time it is.
        attempts: how often a write that lost a race is decided anew before it is refused.
        creation_seconds: how long making a user may take; afterwards any replica removes it.
        aftercheck_seconds: after which further time a user whose making was given up is removed once more, in case
            the database was slower than its client.
        claim_seconds: how long one replica has a lease to itself while it revokes it, beyond the attempt's own time.
        revocation_seconds: how long one attempt to remove a user may take, where its role does not say.
        first_retry_seconds: the wait after a first failure; it doubles with each further one.
        longest_retry_seconds: the longest wait, where the role does not say.
        irrevocable_seconds: after how long a lease that cannot be revoked is shown as such, where its role does not
            say.
        probe_seconds: how soon a database that was away is asked whether it is back; the wait doubles each time.
        longest_probe_seconds: the longest such wait.
        expiry_seconds: how often leases whose time is over are looked for.
        parallel: how many leases of one database one replica revokes at a time, and how many passwords it changes.
        rotation_seconds: how often passwords that are to be changed are looked for.
        change_seconds: how long one attempt to change a password may take.
        change_claim_seconds: how long one replica has the record to itself for that, beyond the attempt's own time.
            What it leaves half-way when it dies is found out after both.
    """

    clock_seconds: float = 1.0
    attempts: int = 30
    creation_seconds: float = 60.0
    aftercheck_seconds: float = 600.0
    claim_seconds: float = 15.0
    revocation_seconds: int = 30
    first_retry_seconds: float = 1.0
    longest_retry_seconds: int = 300
    irrevocable_seconds: int = 86_400
    probe_seconds: float = 2.0
    longest_probe_seconds: float = 30.0
    expiry_seconds: float = 1.0
    parallel: int = 16
    rotation_seconds: float = 1.0
    change_seconds: float = 10.0
    change_claim_seconds: float = 5.0

"""The auth service's configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        attempts: how often a change that lost a race is decided anew before it is refused.
        tidy_seconds: how often expired tokens and left-over work are looked for.
        policy_tidy_seconds: how often policies that ended are removed.
        clock_seconds: how long to wait, at the start, for another replica to say what time it is.
        lockout_tidy_seconds: how often failed logins, secret ids and cubbyholes that are of no more use are removed.
        bcrypt_rounds: the cost of a password hash, as a power of two.
        lockout_threshold: failed logins that lock a user, where the mount does not say otherwise; 0 for never.
        lockout_seconds: how long, where the mount does not say otherwise.
        lockout_reset_seconds: after how long without a failure they are forgotten.
    """

    attempts: int = 30
    tidy_seconds: float = 1.0
    policy_tidy_seconds: float = 60.0
    lockout_tidy_seconds: float = 900.0
    clock_seconds: float = 0.3
    bcrypt_rounds: int = 10
    lockout_threshold: int = 5
    lockout_seconds: int = 900
    lockout_reset_seconds: int = 900

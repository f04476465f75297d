"""The kv service's configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        attempts: how often a write that lost a race is decided anew before it is refused.
    """

    attempts: int = 20

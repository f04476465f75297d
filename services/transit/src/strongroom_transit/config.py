"""The transit service's configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        attempts: how often a change that lost a race is decided anew before it is refused.
        rotation_seconds: how often keys that are due for rotation are looked for.
        begun_seconds: how long somebody may take to write a key with many versions, before another replica takes him
            for dead and removes what he has written.
        batch_items: the most items of one request.
        batch_slice: after so many items of a batch other requests get their turn.
    """

    attempts: int = 50
    rotation_seconds: float = 10.0
    begun_seconds: float = 900.0
    batch_items: int = 100_000
    batch_slice: int = 2_000

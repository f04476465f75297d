"""The transit service's configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        attempts: how often a change that lost a race is decided anew before it is refused.
        rotation_seconds: how often keys that are due for rotation are looked for.
        batch_items: the most items of one request.
        batch_slice: after so many items of a batch other requests get their turn.
    """

    attempts: int = 50
    rotation_seconds: float = 10.0
    batch_items: int = 100_000
    batch_slice: int = 2_000

"""The audit service's configuration."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        folder: below which the API may name audit files. Without it, devices cannot be enabled over the API.
        files: further files that the API may name.
        sync_seconds: how often files are brought to the disk in the background.
        attempts: how often a change that lost a race is decided anew.
    """

    folder: Path | None = None
    files: tuple[Path, ...] = ()
    sync_seconds: float = 1.0
    attempts: int = 20

"""The audit service's configuration."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        folder: in which the API may name audit files.
        files: further files that the API may name.
        sync_seconds: how often files are brought to the disk in the background.
        seal_seconds: how often what was written is sealed.
        record_seconds: how often it is recorded in etcd how far a chain is; its beginning and its end are at once.
        key_seconds: how long a key seals, before another takes its place.
        ending_seconds: how long etcd may take in the end.
        attempts: how often a change that lost a race is decided anew.
    """

    folder: Path
    files: tuple[Path, ...] = ()
    sync_seconds: float = 1.0
    seal_seconds: float = 1.0
    record_seconds: float = 5.0
    key_seconds: float = 86_400.0
    ending_seconds: float = 2.0
    attempts: int = 20

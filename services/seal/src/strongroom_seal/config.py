"""The seal service's configuration."""

from dataclasses import dataclass, field
from pathlib import Path

from strongroom_runtime.version import version


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set.

    Args:
        static_key_file: 32 bytes (raw, hexadecimal or base64) that unseal by themselves at each start; None for
            shares held by people.
        cluster_name: shown to clients.
        version: shown to clients.
        adopt_seconds: how long an initialisation waits for its root token to be usable; then it answers all the same.
        settle_seconds: how long who opens or closes the seal waits until all processes know, and no longer.
        rotation_check_seconds: how often the rotation policy is looked at.
    """

    static_key_file: Path | None = None
    cluster_name: str = "strongroom"
    version: str = field(default_factory=version)
    adopt_seconds: float = 10.0
    settle_seconds: float = 5.0
    rotation_check_seconds: float = 300.0

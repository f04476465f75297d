"""The version of this software: that of the runtime's distribution, which all others are released with."""

import importlib.metadata

VERSION = importlib.metadata.version("strongroom-runtime")

# The version of Vault up to which clients may ask for all that they know of (decision 0033).
VAULT_VERSION = "1.19.0"


def shown(vault_version: str) -> str:
    """Returns the version that clients are told.

    Args:
        vault_version: of Vault, by which clients decide what they ask for; empty for none.

    Returns:
        That version, with this software's as what semantic versioning calls build metadata, which counts for nothing
        where versions are compared. This software's alone where there is none.
    """
    return f"{vault_version}+strongroom.{VERSION}" if vault_version else VERSION

"""The version of this software: that of the runtime's distribution, which all others are released with."""

import functools

# The version of Vault up to which clients may ask for all that they know of (decision 0033).
VAULT_VERSION = "1.19.0"


@functools.cache
def version() -> str:
    """Returns the version of this software."""
    # Short commands need none, and to load what knows it takes a tenth of their time.
    import importlib.metadata

    return importlib.metadata.version("strongroom-runtime")


def shown(vault_version: str) -> str:
    """Returns the version that clients are told.

    Args:
        vault_version: of Vault, by which clients decide what they ask for; empty for none.

    Returns:
        That version, with this software's as what semantic versioning calls build metadata, which counts for nothing
        where versions are compared. This software's alone where there is none.
    """
    return f"{vault_version}+strongroom.{version()}" if vault_version else version()

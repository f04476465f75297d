"""A key for tests."""

from strongroom_audit.domain.keys import SigningKey, first_key

KEY = first_key(b"\1" * 32, "2023-11-14T22:13:20.000000Z")


def key() -> SigningKey:
    """Returns it, as a log returns the newest."""
    return KEY

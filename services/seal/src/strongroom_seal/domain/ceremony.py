"""Gathering shares from several people, one at a time."""

import base64
import binascii
import secrets
import uuid
from collections.abc import Sequence

from strongroom_runtime.errors import invalid
from strongroom_seal.domain import shamir

KEY_BYTES = 32


def check_numbers(shares: int, threshold: int) -> None:
    """Refuses numbers of shares that cannot be.

    Raises:
        ServiceError: INVALID; it names the limits.
    """
    if shares == 1 and threshold == 1:
        return
    if not 1 <= shares <= shamir.MAX_SHARES:
        raise invalid(f"shares must be between 1 and {shamir.MAX_SHARES}")
    if threshold < 2 or threshold > shares:
        raise invalid(
            "threshold must be at least 2, unless there is one share, and not exceed the shares"
        )


def split(key: bytes, shares: int, threshold: int) -> list[bytes]:
    """Returns a key in shares. One share alone is the key itself, as in Vault.

    Raises:
        ServiceError: INVALID; it names the limits.
    """
    check_numbers(shares, threshold)
    return [key] if shares == 1 else shamir.split(key, shares, threshold)


def combine(shares: Sequence[bytes]) -> bytes:
    """Returns what shares give together, which may be wrong.

    Raises:
        ServiceError: INVALID for shares that cannot belong together.
    """
    if len(shares) == 1:
        return shares[0]
    try:
        return shamir.combine(shares)
    except ValueError as error:
        raise invalid(f"the shares do not belong together: {error}") from error


def has_share(given: Sequence[bytes], share: bytes) -> bool:
    """Says whether a share was given already."""
    return any(secrets.compare_digest(share, known) for known in given)


class Gathering:
    """The shares given so far in one attempt."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.nonce = str(uuid.uuid4())
        self._given: list[bytes] = []

    def __repr__(self) -> str:
        return f"Gathering({self.progress} of {self.threshold})"

    @property
    def progress(self) -> int:
        """How many different shares there are."""
        return len(self._given)

    def add(self, share: bytes) -> bytes | None:
        """Takes a share; returns what enough of them give together, which may be wrong, else None.

        The same share given again counts once. After the last one the gathering is empty again.

        Raises:
            ServiceError: INVALID for shares that cannot belong together.
        """
        if not has_share(self._given, share):
            self._given.append(share)
        if self.progress < self.threshold:
            return None
        given, self._given = self._given, []
        return combine(given)


def parse_share(text: str, length: int) -> bytes:
    """Returns a share from hexadecimal or base64.

    Raises:
        ServiceError: INVALID.
    """
    for decode in (bytes.fromhex, _base64):
        try:
            share = decode(text.strip())
        except (ValueError, binascii.Error):
            continue
        if len(share) == length:
            return share
    raise invalid(f"'key' must be a valid hex or base64 string of {length} bytes")


def _base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def encode_with_password(token: str, password: str) -> str:
    """Returns a token XORed with a one-time password of its length, in base64 without padding."""
    mixed = bytes(a ^ b for a, b in zip(token.encode(), password.encode(), strict=True))
    return base64.b64encode(mixed).decode().rstrip("=")


def decode_with_password(encoded: str, password: str) -> str:
    """Returns the token again.

    Raises:
        ServiceError: INVALID.
    """
    try:
        mixed = _base64(encoded)
        return bytes(a ^ b for a, b in zip(mixed, password.encode(), strict=True)).decode()
    except (ValueError, binascii.Error):
        raise invalid("encoded_token or otp: they do not belong together") from None

"""PGP keys of the people who hold shares: what is made for one of them is encrypted before it leaves this process."""

import base64
import binascii
from collections.abc import Sequence

import pysequoia

from strongroom_runtime.errors import invalid


def read_keys(field: str, texts: Sequence[str]) -> tuple[bytes, ...]:
    """Returns keys that were given in base64.

    Each is tried out: that one of them cannot encrypt must not be found when the shares are made.

    Raises:
        ServiceError: INVALID; it names the field.
    """
    return tuple(_read_key(field, text) for text in texts)


def fingerprints(keys: Sequence[bytes]) -> list[str]:
    """Returns what people know the keys by."""
    return [pysequoia.Cert.from_bytes(key).fingerprint for key in keys]


def encrypt(key: bytes, text: str) -> bytes:
    """Returns a PGP message, binary, that only the holder of the key can read."""
    recipient = pysequoia.Cert.from_bytes(key)
    return pysequoia.encrypt(text.encode(), recipients=[recipient], armor=False)


def encrypt_shares(keys: Sequence[bytes], shares: Sequence[bytes]) -> list[bytes]:
    """Returns each share for its holder, as a message with its hexadecimal text; as they are without keys."""
    if not keys:
        return list(shares)
    return [encrypt(key, share.hex()) for key, share in zip(keys, shares, strict=True)]


def _read_key(field: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise invalid(f"{field}: a key is not base64 of a binary PGP key") from None
    if _is_private(key):
        raise invalid(f"{field}: a key is a private one; give public keys")
    try:
        encrypt(key, "")
    except RuntimeError as error:
        raise invalid(f"{field}: a key cannot be used: {_reason(error)}") from None
    return key


def _is_private(key: bytes) -> bool:
    """Says whether the first packet is a secret key: type 5 of RFC 9580, in a header of the new or the old form."""
    first = key[0] if key else 0
    return (first & 0x3F if first & 0x40 else first >> 2 & 0x0F) == 5


def _reason(error: RuntimeError) -> str:
    return str(error).splitlines()[0]  # what follows is a backtrace

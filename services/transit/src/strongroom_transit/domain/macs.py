"""What HMACs and CMACs have in common: `vault:v<version>:` and base64 of a tag, which a version makes of an input."""

import base64
import hmac
from collections.abc import Callable

from strongroom_runtime.errors import invalid
from strongroom_runtime.tools import base64_bytes
from strongroom_transit.domain.keyset import PREFIX, Keyset, split
from strongroom_transit.domain.material import Loaded


def make(keyset: Keyset, wanted: int, tag: Callable[[Loaded], bytes]) -> str:
    """Returns a MAC, made with a version or (0) the newest.

    Raises:
        ServiceError: INVALID.
    """
    number = keyset.key.version_for_encryption(wanted)
    text = base64.b64encode(tag(keyset.version(number))).decode()
    return f"{PREFIX}{number}:{text}"


def verify(keyset: Keyset, text: str, what: str, tag: Callable[[Loaded], bytes]) -> bool:
    """Returns whether a MAC is genuine.

    Args:
        keyset: the key.
        text: the MAC.
        what: the field that it came in, for the error.
        tag: makes the tag that it should have.

    Raises:
        ServiceError: INVALID; it is malformed or of a version that is too old.
    """
    number, body = split(text, what)
    keyset.key.check_decryption(number, what)
    try:
        given = base64_bytes(body)
    except ValueError:
        raise invalid(f"invalid {what}: could not decode base64") from None
    return hmac.compare_digest(tag(keyset.version(number)), given)

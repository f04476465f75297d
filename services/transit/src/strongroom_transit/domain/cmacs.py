"""CMACs (NIST SP 800-38B, RFC 4493): functions of a keyset and an input, without I/O.

A CMAC is `vault:v<version>:` and base64 of its first bytes.
"""

import base64
import hmac

from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from strongroom_runtime.errors import invalid
from strongroom_transit.domain.keyset import PREFIX, Keyset, split
from strongroom_transit.domain.kinds import Family
from strongroom_transit.domain.material import Loaded

# SP 800-38B, appendix A.2: 64 bits at least, where guesses are not bounded otherwise.
MIN_BYTES, MAX_BYTES = 8, 16


def length(number: int, text: str = "") -> int:
    """Returns the number of bytes that a request asks for, in its body or its path.

    Raises:
        ServiceError: INVALID.
    """
    if text:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    if number and not MIN_BYTES <= number <= MAX_BYTES:
        raise invalid(f"mac_length: takes {MIN_BYTES} to {MAX_BYTES} bytes")
    return number or MAX_BYTES


def check(keyset: Keyset) -> None:
    """Raises where the key makes no CMACs.

    Raises:
        ServiceError: INVALID.
    """
    if keyset.key.kind.family is not Family.CMAC:
        raise invalid(f"CMACs are not supported for keys of type {keyset.key.type}")


def make(keyset: Keyset, data: bytes, wanted: int, size: int) -> str:
    """Returns a CMAC of some data, made with a version or (0) the newest.

    Raises:
        ServiceError: INVALID.
    """
    number = keyset.key.version_for_encryption(wanted)
    return f"{PREFIX}{number}:{_cmac(keyset.version(number), data, size)}"


def verify(keyset: Keyset, data: bytes, text: str, size: int) -> bool:
    """Returns whether a CMAC is genuine.

    Raises:
        ServiceError: INVALID; it is malformed or of a version that is too old.
    """
    number, body = split(text, "cmac")
    keyset.key.check_decryption(number, "cmac")
    expected = _cmac(keyset.version(number), data, size)
    return hmac.compare_digest(expected.encode(), body.encode())


def _cmac(loaded: Loaded, data: bytes, size: int) -> str:
    made = cmac.CMAC(AES(loaded.version.secret))
    made.update(data)
    return base64.b64encode(made.finalize()[:size]).decode()

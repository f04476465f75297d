"""CMACs (NIST SP 800-38B, RFC 4493): functions of a keyset and an input, without I/O.

A CMAC is `vault:v<version>:` and base64 of its first bytes.
"""

from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from strongroom_runtime.errors import invalid
from strongroom_transit.domain import macs
from strongroom_transit.domain.keyset import Keyset
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
    return macs.make(keyset, wanted, lambda loaded: _tag(loaded, data, size))


def verify(keyset: Keyset, data: bytes, text: str, size: int) -> bool:
    """Returns whether a CMAC is genuine.

    Raises:
        ServiceError: INVALID; it is malformed or of a version that is too old.
    """
    return macs.verify(keyset, text, "cmac", lambda loaded: _tag(loaded, data, size))


def _tag(loaded: Loaded, data: bytes, size: int) -> bytes:
    made = cmac.CMAC(AES(loaded.version.secret))
    made.update(data)
    return made.finalize()[:size]

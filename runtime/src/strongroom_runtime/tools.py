"""Random bytes and hashes as Vault's `tools` give them: for sys/tools and the transit engine alike.

Vault documentation, "/sys/tools" and "Transit secrets engine (API)", random and hash data.
"""

import base64
import binascii
import hashlib
import os

from strongroom_runtime.errors import invalid

MAX_RANDOM = 131_072
SOURCES = ("platform", "seal", "all")
# By the names of Vault; the values are those of hashlib.
ALGORITHMS = {
    f"sha{family}-{size}": f"sha{size}" if family == 2 else f"sha3_{size}"
    for family in (2, 3)
    for size in (224, 256, 384, 512)
}


def random_text(size: str, source: str = "", form: str = "") -> str:
    """Returns random bytes of the operating system.

    Args:
        size: how many, 1 to MAX_RANDOM, as decimal text; 32 where empty.
        source: one of SOURCES, or empty. All give the same.
        form: base64 or hex; base64 where empty.

    Raises:
        ServiceError: INVALID; it names the parameter.
    """
    if source and source not in SOURCES:
        raise invalid(f"source: takes one of {', '.join(SOURCES)}")
    count = size or "32"
    if not count.isascii() or not count.isdigit() or not 1 <= int(count[:9]) <= MAX_RANDOM:
        raise invalid(f"bytes: takes a number from 1 to {MAX_RANDOM}")
    return encoded(os.urandom(int(count)), form or "base64")


def hash_text(data: bytes, algorithm: str = "", form: str = "") -> str:
    """Returns the hash of some bytes.

    Args:
        data: what to hash.
        algorithm: one of ALGORITHMS; sha2-256 where empty.
        form: base64 or hex; hex where empty.

    Raises:
        ServiceError: INVALID; it names the parameter.
    """
    digest = hashlib.new(hash_name(algorithm or "sha2-256"), data).digest()
    return encoded(digest, form or "hex")


def hash_name(algorithm: str) -> str:
    """Returns hashlib's name of an algorithm.

    Raises:
        ServiceError: INVALID; there is none of that name.
    """
    if algorithm not in ALGORITHMS:
        raise invalid(f"algorithm: takes one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[algorithm]


def base64_bytes(text: str) -> bytes:
    """Returns what base64 stands for: strictly read, but for line ends, which programs and files put into it.

    Raises:
        ValueError: it is something else.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        if "\n" not in text:
            raise
    return binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)


def base64_text(text: str) -> str | None:
    """Returns the text that base64 stands for, strictly read; None where it stands for none, as most texts do."""
    try:
        return binascii.a2b_base64(text, strict_mode=True).decode()
    except ValueError:  # of either, and of a text that is not ASCII
        return None


def encoded(data: bytes, form: str) -> str:
    """Returns bytes as text.

    Args:
        data: the bytes.
        form: base64 or hex.

    Raises:
        ServiceError: INVALID; the form is another one.
    """
    if form == "hex":
        return data.hex()
    if form == "base64":
        return base64.b64encode(data).decode()
    raise invalid("format: takes base64 or hex")

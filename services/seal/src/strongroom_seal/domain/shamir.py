"""Shamir's secret sharing over GF(2**8), with shares laid out as Vault's are.

A. Shamir, "How to share a secret", CACM 22 (1979). The field is that of AES (x**8 + x**4 + x**3 + x + 1). Each byte
of the secret is the constant term of a random polynomial of degree threshold - 1; a share is the polynomials'
values at one x, followed by x itself. Shares carry no checksum: whoever combines them must verify the result.

The arithmetic uses tables and is not constant in time; it runs on an operator's act, a few times in a key's life.
"""

import secrets
from collections.abc import Sequence

MAX_SHARES = 255


def split(secret: bytes, shares: int, threshold: int) -> list[bytes]:
    """Returns shares of a secret, any `threshold` of which give it back.

    Args:
        secret: at least one byte.
        shares: how many to make, 2 to 255.
        threshold: how many are needed, 2 to `shares`.

    Raises:
        ValueError: arguments out of range.
    """
    if not secret:
        raise ValueError("the secret must not be empty")
    if not 2 <= threshold <= shares <= MAX_SHARES:
        raise ValueError(f"needs 2 <= threshold <= shares <= {MAX_SHARES}")
    # Distinct and never 0, where the polynomial's value is the secret itself.
    places = secrets.SystemRandom().sample(range(1, MAX_SHARES + 1), shares)
    polynomials = [bytes([byte]) + secrets.token_bytes(threshold - 1) for byte in secret]
    return [bytes([_evaluate(p, x) for p in polynomials] + [x]) for x in places]


def combine(shares: Sequence[bytes]) -> bytes:
    """Returns what shares give together: the secret if they are enough and right, else noise.

    Raises:
        ValueError: fewer than two shares, of different lengths, with x = 0, or one of them twice.
    """
    if len(shares) < 2:
        raise ValueError("needs at least two shares")
    length = len(shares[0])
    if length < 2 or any(len(share) != length for share in shares):
        raise ValueError("all shares must have the same length, of two bytes or more")
    places = [share[-1] for share in shares]
    if 0 in places:
        raise ValueError("a share is malformed")
    if len(set(places)) != len(places):
        raise ValueError("a share was given twice")
    weights = [_weight(x, places) for x in places]
    secret = bytearray(length - 1)
    for share, weight in zip(shares, weights, strict=True):
        for position in range(length - 1):
            secret[position] ^= _multiply(share[position], weight)
    return bytes(secret)


def _tables() -> tuple[list[int], list[int]]:
    """Returns powers and logarithms to the generator 3."""
    powers, logarithms = [0] * 510, [0] * 256
    value = 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        doubled = value << 1
        value ^= doubled ^ (0x11B if doubled & 0x100 else 0)
    return powers, logarithms


_POWERS, _LOGARITHMS = _tables()


def _multiply(a: int, b: int) -> int:
    return _POWERS[_LOGARITHMS[a] + _LOGARITHMS[b]] if a and b else 0


def _divide(a: int, b: int) -> int:
    return _POWERS[_LOGARITHMS[a] + 255 - _LOGARITHMS[b]] if a else 0


def _evaluate(coefficients: bytes, x: int) -> int:
    """Returns a polynomial's value at x by Horner's rule; the constant term comes first."""
    value = 0
    for coefficient in reversed(coefficients):
        value = _multiply(value, x) ^ coefficient
    return value


def _weight(x: int, places: Sequence[int]) -> int:
    """Returns the Lagrange coefficient of a place for the value at 0."""
    weight = 1
    for other in places:
        if other != x:
            weight = _multiply(weight, _divide(other, other ^ x))
    return weight

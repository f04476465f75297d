"""RSA keys take up to seconds to make: what tests make is kept for others."""

import itertools
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

_generate = rsa.generate_private_key


@cache
def _made(number: int, exponent: int, size: int) -> rsa.RSAPrivateKey:
    return _generate(exponent, size)


@pytest.fixture(autouse=True)
def few_rsa_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each test the same keys in the same order; those of one test differ from each other."""
    numbers = itertools.count()

    def generate(public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        return _made(next(numbers), public_exponent, key_size)

    monkeypatch.setattr(rsa, "generate_private_key", generate)

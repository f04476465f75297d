"""Random bytes and hashes: NIST's examples for SHA-2 and SHA-3, and what is refused."""

import base64

import pytest

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.tools import MAX_RANDOM, hash_text, random_text

# FIPS 180-4 and FIPS 202, the examples of the message "abc" (NIST, "Example values").
_ABC = {
    "sha2-224": "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
    "sha2-256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "sha3-224": "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
    "sha3-256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
}


@pytest.mark.parametrize(("algorithm", "expected"), _ABC.items())
def test_hashes_are_those_of_the_standard(algorithm: str, expected: str) -> None:
    assert hash_text(b"abc", algorithm) == expected
    assert base64.b64decode(hash_text(b"abc", algorithm, "base64")).hex() == expected


def test_a_hash_is_sha2_256_in_hexadecimal_by_default() -> None:
    assert hash_text(b"abc") == _ABC["sha2-256"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "SHA2-256"])
def test_other_algorithms_are_refused_by_name(algorithm: str) -> None:
    with pytest.raises(ServiceError, match="algorithm") as caught:
        hash_text(b"abc", algorithm)
    assert caught.value.kind is Kind.INVALID


def test_random_bytes_come_in_the_number_and_form_asked_for() -> None:
    assert len(base64.b64decode(random_text(""))) == 32
    assert len(bytes.fromhex(random_text("5", form="hex"))) == 5
    assert len(base64.b64decode(random_text(str(MAX_RANDOM), "all"))) == MAX_RANDOM
    assert random_text("") != random_text("")


@pytest.mark.parametrize("size", ["0", "-1", "131073", "many", "1e3", "²", "9" * 5_000])
def test_other_numbers_are_refused_by_name(size: str) -> None:
    with pytest.raises(ServiceError, match="bytes: ") as caught:
        random_text(size)
    assert size not in caught.value.message or len(size) == 1


def test_other_sources_and_forms_are_refused_by_name() -> None:
    with pytest.raises(ServiceError, match="source: "):
        random_text("8", "dice")
    with pytest.raises(ServiceError, match="format: "):
        random_text("8", form="base32")

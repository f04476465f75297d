"""Authenticated segments against Tink's own output, and against everything that can be done to a stream."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_client.streaming_aead import (
    HEADER_BYTES,
    TAG_BYTES,
    Decryptor,
    Encryptor,
    StreamError,
)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "tink_streaming_aead.json").read_text()
)["vectors"]
SEGMENT = 4096
FIRST, NEXT = SEGMENT - TAG_BYTES - HEADER_BYTES, SEGMENT - TAG_BYTES
KEY = bytes(range(32))


def encrypt(plaintext: bytes, aad: bytes = b"aad", pieces: int = 1000) -> bytes:
    encryptor = Encryptor(KEY, aad, SEGMENT)
    parts = [encryptor.update(plaintext[i : i + pieces]) for i in range(0, len(plaintext), pieces)]
    return b"".join(parts) + encryptor.finalize()


def decrypt(ciphertext: bytes, aad: bytes = b"aad", key: bytes = KEY, pieces: int = 777) -> bytes:
    decryptor = Decryptor(key, aad, SEGMENT)
    parts = [
        decryptor.update(ciphertext[i : i + pieces]) for i in range(0, len(ciphertext), pieces)
    ]
    return b"".join(parts) + decryptor.finalize()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: str(v["plaintext_bytes"]))
def test_the_bytes_are_those_of_tink(vector: dict[str, Any]) -> None:
    key, aad = bytes.fromhex(vector["key"]), bytes.fromhex(vector["associated_data"])
    header = bytes.fromhex(vector["header"])
    plaintext = bytes(i * 7 % 251 for i in range(vector["plaintext_bytes"]))
    encryptor = Encryptor(key, aad, vector["segment_bytes"], salt=header[1:33], prefix=header[33:])
    ciphertext = encryptor.update(plaintext) + encryptor.finalize()
    assert hashlib.sha256(ciphertext).hexdigest() == vector["ciphertext_sha256"]
    if "ciphertext" in vector:
        assert ciphertext.hex() == vector["ciphertext"]
    decryptor = Decryptor(key, aad, vector["segment_bytes"])
    assert decryptor.update(ciphertext) + decryptor.finalize() == plaintext


@pytest.mark.parametrize(
    "size", [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + NEXT, FIRST + NEXT + 1, FIRST + 3 * NEXT]
)
def test_every_length_comes_back_and_none_has_an_empty_last_segment(size: int) -> None:
    plaintext = os.urandom(size)
    ciphertext = encrypt(plaintext)
    segments = 1 if size <= FIRST else 1 + -(-(size - FIRST) // NEXT)
    assert len(ciphertext) == HEADER_BYTES + size + segments * TAG_BYTES
    assert decrypt(ciphertext) == plaintext


def segments_of(ciphertext: bytes) -> list[bytes]:
    """Returns the header and the segments."""
    body = ciphertext[HEADER_BYTES:]
    first = SEGMENT - HEADER_BYTES
    rest = [body[i : i + SEGMENT] for i in range(first, len(body), SEGMENT)]
    return [ciphertext[:HEADER_BYTES], body[:first], *rest]


def test_segments_cannot_be_moved_doubled_or_dropped() -> None:
    header, first, second, third, last = segments_of(encrypt(os.urandom(FIRST + 3 * NEXT)))
    assert len({len(second), len(third), len(last)}) == 1
    for wrong in (
        [header, first, third, second, last],
        [header, first, second, second, last],
        [header, first, second, last],
        [header, first, second, third],
        [header, first, second, third, last, last],
        [header, first, second, third, last[:-1]],
        [header, first, second, third, last[: TAG_BYTES - 1]],
        [header, second, first, third, last],
        [header],
        [],
    ):
        with pytest.raises(StreamError):
            decrypt(b"".join(wrong))


def test_segments_of_another_stream_of_the_same_key_do_not_fit() -> None:
    one, other = (segments_of(encrypt(os.urandom(FIRST + 2 * NEXT))) for _ in range(2))
    with pytest.raises(StreamError):
        decrypt(b"".join([*one[:2], other[2], one[3]]))


def test_another_key_or_other_associated_data_do_not_open() -> None:
    for size in (0, 10, 10_000):
        ciphertext = encrypt(os.urandom(size))
        with pytest.raises(StreamError):
            decrypt(ciphertext, key=bytes(32))
        with pytest.raises(StreamError):
            decrypt(ciphertext, aad=b"other")


def test_what_is_given_out_before_a_damaged_segment_is_the_beginning() -> None:
    plaintext = os.urandom(FIRST + 2 * NEXT)
    ciphertext = bytearray(encrypt(plaintext))
    ciphertext[2 * SEGMENT + 5] ^= 1
    decryptor, given = Decryptor(KEY, b"aad", SEGMENT), b""
    with pytest.raises(StreamError):
        for i in range(0, len(ciphertext), 100):
            given += decryptor.update(bytes(ciphertext[i : i + 100]))
        decryptor.finalize()
    assert given == plaintext[: FIRST + NEXT]


@given(st.data())
def test_no_byte_can_be_changed_or_cut_off(data: st.DataObject) -> None:
    plaintext = data.draw(st.binary(max_size=9000))
    ciphertext = bytearray(encrypt(plaintext, pieces=data.draw(st.integers(1, 9000))))
    assert decrypt(bytes(ciphertext), pieces=data.draw(st.integers(1, 9000))) == plaintext
    position = data.draw(st.integers(0, len(ciphertext) - 1))
    cut = bytes(ciphertext[:position])
    ciphertext[position] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(ciphertext), cut):
        with pytest.raises(StreamError):
            decrypt(wrong)


def test_lengths_that_are_wrong_are_refused() -> None:
    for key, segment in ((b"short", SEGMENT), (KEY, 100), (KEY, 2 << 20)):
        with pytest.raises(ValueError, match=r"4 KiB|length"):
            Encryptor(key, b"", segment).finalize()

"""The format around authenticated segments."""

import os

import pytest

from strongroom_client.sealed_stream import Header, HeaderReader
from strongroom_client.streaming_aead import StreamError

HEADER = Header("orders", "vault:v3:AAECAwQ=")
KEY = bytes(32)


def sealed(plaintext: bytes, aad: bytes = b"") -> bytes:
    encryptor = HEADER.encryptor(KEY, aad)
    return HEADER.encode() + encryptor.update(plaintext) + encryptor.finalize()


def opened(stream: bytes, pieces: int, aad: bytes = b"") -> bytes:
    reader, decryptor, plain = HeaderReader(), None, b""
    for i in range(0, len(stream), pieces):
        piece = stream[i : i + pieces]
        if decryptor is None:
            if (found := reader.update(piece)) is None:
                continue
            header, piece = found
            decryptor = header.decryptor(KEY, aad)
        plain += decryptor.update(piece)
    if decryptor is None:
        reader.finalize()
        raise AssertionError("unreachable")
    return plain + decryptor.finalize()


@pytest.mark.parametrize("pieces", [1, 7, 1000, 1 << 20])
def test_what_is_sealed_is_opened_from_pieces_of_any_length(pieces: int) -> None:
    plaintext = os.urandom(100 if pieces == 1 else 200_000)
    assert opened(sealed(plaintext, b"who"), pieces, b"who") == plaintext
    assert opened(sealed(b""), pieces) == b""


def test_the_header_says_which_key_and_version() -> None:
    found = HeaderReader().update(sealed(b"x"))
    assert found is not None
    assert (found[0], found[0].key_version) == (HEADER, 3)
    assert Header("orders", "odd").key_version == 0


def test_the_bytes_of_the_format() -> None:
    assert HEADER.encode() == (
        b"SRST\x01\x01\x00\x01\x00\x00\x00\x06orders\x00\x11vault:v3:AAECAwQ="
    )


def test_no_byte_of_the_header_can_be_changed_or_cut_off() -> None:
    whole = sealed(b"plaintext")
    for position in range(len(HEADER.encode()) + 40):
        changed = bytearray(whole)
        changed[position] ^= 1
        for wrong in (bytes(changed), whole[:position]):
            with pytest.raises(StreamError):
                opened(wrong, 64)


def test_other_associated_data_does_not_open() -> None:
    with pytest.raises(StreamError):
        opened(sealed(b"x", b"who"), 64, b"else")

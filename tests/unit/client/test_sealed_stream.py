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


def opened(stream: bytes, pieces: int, aad: bytes = b"", key: bytes = KEY) -> bytes:
    reader, decryptor, plain = HeaderReader(), None, b""
    for i in range(0, len(stream), pieces):
        piece = stream[i : i + pieces]
        if decryptor is None:
            if (found := reader.update(piece)) is None:
                continue
            header, piece = found
            decryptor = header.decryptor(key, aad)
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
        b"SRST\x02\x01\x00\x01\x00\x00\x00\x06orders\x00\x11vault:v3:AAECAwQ="
    )


def test_what_version_1_made_is_opened_and_keeps_its_header() -> None:
    made = bytes.fromhex(
        "5352535401010000100000066f726465727300117661756c743a76333a414145434177513d28202122232425262728292a2b2c2d2e"
        "2f303132333435363738393a3b3c3d3e3f00000000000000536e72c8fda8446a18ff3e1e47b320a9e145370d2a175ea5c525d6aea0"
        "fb88230113bcc8"
    )
    assert opened(made, 7, b"who", key=bytes(range(32))) == b"written by version 1"
    for position in range(len(HEADER.encode())):
        changed = bytearray(made)
        changed[position] ^= 1
        with pytest.raises(StreamError):
            opened(bytes(changed), 64, b"who", key=bytes(range(32)))
    found = HeaderReader().update(made)
    assert found is not None
    with pytest.raises(StreamError, match="version 1"):
        found[0].rewrapped("vault:v4:AAECAwQ=")


def test_a_key_that_is_wrapped_anew_opens_what_was_sealed_before() -> None:
    stream = sealed(b"plaintext")
    assert stream.startswith(HEADER.encode())
    new = HEADER.rewrapped("vault:v10:BQYHCAkK")
    assert new.key_version == 10
    assert opened(new.encode() + stream[len(HEADER.encode()) :], 7) == b"plaintext"


def test_no_byte_of_the_header_can_be_changed_or_cut_off() -> None:
    whole = sealed(b"plaintext")
    # The wrapped key is for the transit key to check.
    wrapped = range(len(HEADER.encode()) - len(HEADER.wrapped_key), len(HEADER.encode()))
    for position in set(range(len(HEADER.encode()) + 40)) - set(wrapped):
        changed = bytearray(whole)
        changed[position] ^= 1
        for wrong in (bytes(changed), whole[:position]):
            with pytest.raises(StreamError):
                opened(wrong, 64)


def test_other_associated_data_does_not_open() -> None:
    with pytest.raises(StreamError):
        opened(sealed(b"x", b"who"), 64, b"else")

"""The vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1."""

import pytest
from cryptography.exceptions import InvalidTag

from strongroom_transit.domain.xchacha import XChaCha20Poly1305

KEY = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0x40, 0x58))
DATA = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SEALED = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
    "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
    "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52e"
    "c0875924c1c7987947deafd8780acf49"
)


def test_it_gives_what_the_draft_says() -> None:
    aead = XChaCha20Poly1305(KEY)
    assert aead.encrypt(NONCE, PLAINTEXT, DATA) == SEALED
    assert aead.decrypt(NONCE, SEALED, DATA) == PLAINTEXT


@pytest.mark.parametrize("place", range(0, len(SEALED), 13))
def test_what_was_changed_does_not_open(place: int) -> None:
    changed = SEALED[:place] + bytes([SEALED[place] ^ 1]) + SEALED[place + 1 :]
    with pytest.raises(InvalidTag):
        XChaCha20Poly1305(KEY).decrypt(NONCE, changed, DATA)


def test_associated_data_belongs_to_it() -> None:
    with pytest.raises(InvalidTag):
        XChaCha20Poly1305(KEY).decrypt(NONCE, SEALED, b"")


def test_its_repr_has_no_key() -> None:
    assert repr(XChaCha20Poly1305(KEY)) == "XChaCha20Poly1305()"

"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), which `cryptography` has not: libsodium's, by way of PyNaCl."""

from cryptography.exceptions import InvalidTag
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError


class XChaCha20Poly1305:
    """An AEAD of the same form as those of `cryptography`.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "XChaCha20Poly1305()"

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Returns the ciphertext with the tag of 16 bytes behind it; the nonce has 24 bytes."""
        return crypto_aead_xchacha20poly1305_ietf_encrypt(data, associated_data, nonce, self._key)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext.

        Raises:
            InvalidTag: it was not made with this key, nonce and associated data.
        """
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                data, associated_data, nonce, self._key
            )
        except CryptoError:
            raise InvalidTag from None

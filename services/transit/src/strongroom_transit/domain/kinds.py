"""The types of keys and what they can do (Vault documentation, "Transit secrets engine", key types)."""

from dataclasses import dataclass
from enum import Enum

from strongroom_runtime.errors import invalid


class Family(Enum):
    """Types that work alike."""

    AEAD = "aead"
    RSA = "rsa"
    ECDSA = "ecdsa"
    ED25519 = "ed25519"
    ML_DSA = "ml-dsa"
    HMAC = "hmac"
    CMAC = "cmac"


@dataclass(frozen=True, slots=True)
class KeyType:
    """One type.

    Args:
        name: as clients write it.
        family: what it works like.
        size: bytes of a symmetric key, bits of an RSA key or curve, the number of a parameter set.
        nonce_bytes: of an AEAD.
    """

    name: str
    family: Family
    size: int = 0
    nonce_bytes: int = 12

    @property
    def symmetric(self) -> bool:
        """Whether it has no public half."""
        return self.family in (Family.AEAD, Family.HMAC, Family.CMAC)

    @property
    def encrypts(self) -> bool:
        """Whether it encrypts and decrypts."""
        return self.family in (Family.AEAD, Family.RSA)

    @property
    def signs(self) -> bool:
        """Whether it signs and verifies."""
        return self.family in (Family.RSA, Family.ECDSA, Family.ED25519, Family.ML_DSA)

    @property
    def derives(self) -> bool:
        """Whether a key for each context can be derived from it."""
        return self.family in (Family.AEAD, Family.ED25519)

    @property
    def takes_associated_data(self) -> bool:
        """Whether it authenticates data that is not part of the ciphertext."""
        return self.family is Family.AEAD


TYPES = {
    each.name: each
    for each in (
        KeyType("aes128-gcm96", Family.AEAD, 16),
        KeyType("aes256-gcm96", Family.AEAD, 32),
        KeyType("chacha20-poly1305", Family.AEAD, 32),
        KeyType("xchacha20-poly1305", Family.AEAD, 32, 24),
        KeyType("ed25519", Family.ED25519),
        KeyType("ecdsa-p256", Family.ECDSA, 256),
        KeyType("ecdsa-p384", Family.ECDSA, 384),
        KeyType("ecdsa-p521", Family.ECDSA, 521),
        KeyType("rsa-2048", Family.RSA, 2048),
        KeyType("rsa-3072", Family.RSA, 3072),
        KeyType("rsa-4096", Family.RSA, 4096),
        KeyType("hmac", Family.HMAC, 32),
        KeyType("aes128-cmac", Family.CMAC, 16),
        KeyType("aes192-cmac", Family.CMAC, 24),
        KeyType("aes256-cmac", Family.CMAC, 32),
        KeyType("ml-dsa-44", Family.ML_DSA, 44),
        KeyType("ml-dsa-65", Family.ML_DSA, 65),
        KeyType("ml-dsa-87", Family.ML_DSA, 87),
    )
}
USUAL = "aes256-gcm96"


def type_named(name: str, parameter_set: str = "") -> KeyType:
    """Returns a type.

    Args:
        name: as clients write it; empty for the usual one. `ml-dsa` takes its parameter set from beside it, as in
            Vault.
        parameter_set: 44, 65 or 87.

    Raises:
        ServiceError: INVALID; there is none of that name.
    """
    wanted = name or USUAL
    if wanted == "ml-dsa":
        wanted = f"ml-dsa-{parameter_set or 65}"
    found = TYPES.get(wanted)
    if found is None:
        raise invalid(f"type: takes one of {', '.join(TYPES)}")
    return found

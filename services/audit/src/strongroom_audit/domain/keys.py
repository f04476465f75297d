"""The keys that seal chains: Ed25519 (RFC 8032), each vouched for by the one before it.

The private half of a key goes when the next one is made. Who takes the newest can seal nothing in the name of an
older one; who knows an older public key follows the certificates to the newest.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES = 32
MOST_KEYS = 50_000  # that a log may name: nobody has so many, and somebody may make them up
_CERTIFICATE = b"strongroom audit key v1\n"


class Certificate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the key before says of a key.

    Args:
        number: of the key; the first is 1.
        since: when it was made, RFC 3339.
        issuer: the public key of the one before it; empty for the first.
        signature: of the issuer, hexadecimal; empty for the first.
    """

    number: int
    since: str
    issuer: str = ""
    signature: str = ""

    def signed(self, public: str) -> bytes:
        """Returns what the issuer signs."""
        return _CERTIFICATE + f"{self.number}\n{self.since}\n{public}\n{self.issuer}".encode()

    def holds(self, public: str) -> bool:
        """Returns whether the issuer signed it for this key."""
        return bool(self.issuer) and verifies(self.issuer, self.signature, self.signed(public))


class Signs(Protocol):
    """Signs with the newest key."""

    @property
    def public(self) -> str:
        """The public key, hexadecimal."""
        ...

    @property
    def certificate(self) -> Certificate:
        """What is said of it."""
        ...

    def sign(self, data: bytes) -> str:
        """Returns a signature, hexadecimal."""
        ...


class SigningKey:
    """A key with its private half.

    Args:
        seed: 32 random bytes.
        certificate: its own.
    """

    def __init__(self, seed: bytes, certificate: Certificate) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw().hex()
        self.certificate = certificate

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"

    def sign(self, data: bytes) -> str:
        """Returns a signature, hexadecimal."""
        return self._private.sign(data).hex()

    def successor(self, seed: bytes, since: str) -> "SigningKey":
        """Returns the next key, made of other random bytes, vouched for by this one."""
        certificate = Certificate(self.certificate.number + 1, since, self.public)
        public = SigningKey(seed, certificate).public
        signature = self.sign(certificate.signed(public))
        return SigningKey(seed, msgspec.structs.replace(certificate, signature=signature))


def first_key(seed: bytes, since: str) -> SigningKey:
    """Returns the first key of a platform, which nothing vouches for."""
    return SigningKey(seed, Certificate(1, since))


def is_public(text: str) -> bool:
    """Returns whether a text is a public key: 64 hexadecimal digits, in lower case."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def verifies(public: str, signature: str, data: bytes) -> bool:
    """Returns whether a signature is of a public key and of this; both hexadecimal."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


class Trust:
    """Which keys are to be believed: those that are known, and those that these vouch for, one after another.

    Args:
        anchors: public keys that are known to be the platform's.
    """

    def __init__(self, anchors: Iterable[str] = ()) -> None:
        self.anchors = frozenset(anchors)
        self._certificates: dict[str, dict[str, Certificate]] = {}  # by public key and issuer
        self._believed: set[str] | None = None  # as far as it is known what follows from what

    def learn(self, public: str, certificate: Certificate) -> None:
        """Takes a certificate in, if it is the first key's or its issuer signed it; of very many the first."""
        known = self._certificates.get(public, {})
        if certificate.issuer in known or len(self._certificates) >= MOST_KEYS:
            return
        if not certificate.issuer or certificate.holds(public):
            self._certificates.setdefault(public, known)[certificate.issuer] = certificate
            self._believed = None

    def believes(self, public: str) -> bool:
        """Returns whether a chain of certificates leads from an anchor to this key."""
        if self._believed is None:
            self._believed = self._follow()
        return public in self._believed

    def forks(self) -> list[str]:
        """Returns the believed keys that vouched for more than one."""
        made = self._successors()
        return sorted(key for key in made if len(made[key]) > 1 and self.believes(key))

    def begun(self) -> str:
        """Returns when the oldest believed key was made, RFC 3339; empty where no certificate says."""
        dates = [
            certificate.since
            for public, known in self._certificates.items()
            if self.believes(public)
            for certificate in known.values()
        ]
        return min(dates, default="")

    def _follow(self) -> set[str]:
        successors = self._successors()
        believed: set[str] = set()
        waiting = list(self.anchors)
        while waiting:
            each = waiting.pop()
            if each not in believed:
                believed.add(each)
                waiting += successors.get(each, ())
        return believed

    def _successors(self) -> dict[str, list[str]]:
        successors: dict[str, list[str]] = {}
        for public, known in self._certificates.items():
            for issuer in known:
                if issuer:
                    successors.setdefault(issuer, []).append(public)
        return successors

"""The root key, the key ring under it, and the keys derived for each service."""

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom_runtime.barrier import KeyRing
from strongroom_seal.domain.ceremony import KEY_BYTES

_NAME_KEY_BYTES = 64


class Term(msgspec.Struct, frozen=True):
    """One term of the key ring. `installed` is wall time in seconds since 1970."""

    key: bytes
    installed: float

    def __repr__(self) -> str:
        return f"Term(installed={self.installed})"


class MasterRing(msgspec.Struct, frozen=True):
    """What all services' keys are derived from. The name secret never changes: names are found by ciphertext."""

    terms: dict[int, Term]
    name_secret: bytes

    def __repr__(self) -> str:
        return f"MasterRing(active_term={self.active_term})"

    @property
    def active_term(self) -> int:
        """The term that encrypts."""
        return max(self.terms)

    def rotated(self, now: float) -> "MasterRing":
        """Returns the ring with a new term."""
        term = Term(os.urandom(KEY_BYTES), now)
        return MasterRing({**self.terms, self.active_term + 1: term}, self.name_secret)

    def keys_for(self, service: str) -> tuple[dict[int, bytes], bytes]:
        """Returns the terms and the name key of one service (HKDF-SHA256, RFC 5869; the info names the service)."""
        terms = {
            number: _derive(term.key, f"strongroom v1 barrier {service}", KEY_BYTES)
            for number, term in self.terms.items()
        }
        return terms, _derive(self.name_secret, f"strongroom v1 names {service}", _NAME_KEY_BYTES)

    def ring_for(self, service: str) -> KeyRing:
        """Returns the key ring of one service."""
        return KeyRing(*self.keys_for(service))


def new_ring(now: float) -> MasterRing:
    """Returns a ring with one term."""
    return MasterRing({1: Term(os.urandom(KEY_BYTES), now)}, os.urandom(KEY_BYTES))


def encrypt(key: bytes, value: bytes, name: str, bound: bytes = b"") -> bytes:
    """Returns a value under a key: nonce (12 bytes) and AES-256-GCM ciphertext, bound to its name and to more."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, value, name.encode() + b"\0" + bound)


def decrypt(key: bytes, sealed: bytes, name: str, bound: bytes = b"") -> bytes | None:
    """Returns the value, or None where the key is wrong or the value was altered."""
    if len(key) != KEY_BYTES or len(sealed) < 12:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], name.encode() + b"\0" + bound)
    except InvalidTag:
        return None


def _derive(secret: bytes, info: str, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt=None, info=info.encode()).derive(secret)

"""The root key, the key ring under it, and the keys derived for each service.

The ring has one term more than is in use. A rotation begins to use it, so that a service that has not heard of the
rotation yet opens what others write after it. So it takes two rotations to shut out who has stolen a service's keys.
"""

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
    """One term of the key ring. `installed` is wall time in seconds since 1970, 0 while it waits for its use."""

    key: bytes
    installed: float

    def __repr__(self) -> str:
        return f"Term(installed={self.installed})"


class MasterRing(msgspec.Struct, frozen=True):
    """What all services' keys are derived from. The name secret never changes: names are found by ciphertext."""

    terms: dict[int, Term]
    name_secret: bytes
    active: int = 0  # 0 in rings that an earlier version made, without a term in advance

    def __repr__(self) -> str:
        return f"MasterRing(active_term={self.active_term})"

    @property
    def active_term(self) -> int:
        """The term that encrypts."""
        return self.active or max(self.terms)

    def rotated(self, now: float) -> "MasterRing":
        """Returns the ring with the next term in use, and another in advance."""
        active = self.active_term + 1
        waiting = self.terms.get(active, _new_term())
        begun = msgspec.structs.replace(waiting, installed=now)
        terms = {**self.terms, active: begun, active + 1: _new_term()}
        return msgspec.structs.replace(self, terms=terms, active=active)

    def keys_for(self, service: str) -> tuple[dict[int, bytes], bytes]:
        """Returns the terms and the name key of one service (HKDF-SHA256, RFC 5869; the info names the service)."""
        terms = {
            number: _derive(term.key, f"strongroom v1 barrier {service}", KEY_BYTES)
            for number, term in self.terms.items()
        }
        return terms, _derive(self.name_secret, f"strongroom v1 names {service}", _NAME_KEY_BYTES)

    def ring_for(self, service: str) -> KeyRing:
        """Returns the key ring of one service."""
        return KeyRing(*self.keys_for(service), active=self.active_term)


def new_ring(now: float) -> MasterRing:
    """Returns a ring in its first term."""
    first = msgspec.structs.replace(_new_term(), installed=now)
    return MasterRing({1: first, 2: _new_term()}, os.urandom(KEY_BYTES), 1)


def _new_term() -> Term:
    return Term(os.urandom(KEY_BYTES), 0.0)


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

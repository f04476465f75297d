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
from strongroom_runtime.errors import invalid
from strongroom_seal.domain.ceremony import KEY_BYTES

_NAME_KEY_BYTES = 64
# Nine tenths of 2**32, the bound of NIST SP 800-38D for random nonces under one key.
MAX_OPERATIONS = 3_865_470_566
MIN_OPERATIONS = 1_000_000
MIN_INTERVAL = 24 * 3600


class Term(msgspec.Struct, frozen=True):
    """One term of the key ring. `installed` is wall time in seconds since 1970, 0 while it waits for its use;
    `revision` is the store's when its use began.
    """

    key: bytes
    installed: float
    revision: int = 0

    def __repr__(self) -> str:
        return f"Term(installed={self.installed})"


class RotationPolicy(msgspec.Struct, frozen=True):
    """When a new term begins by itself; `interval` is in seconds, 0 for never."""

    enabled: bool = True
    max_operations: int = MAX_OPERATIONS
    interval: int = 0

    def checked(self) -> "RotationPolicy":
        """Returns the policy.

        Raises:
            ServiceError: INVALID where it is out of bounds.
        """
        if not MIN_OPERATIONS <= self.max_operations <= MAX_OPERATIONS:
            raise invalid(f"max_operations: must be between {MIN_OPERATIONS} and {MAX_OPERATIONS}")
        if self.interval and self.interval < MIN_INTERVAL:
            raise invalid("interval: must be 0 or at least 24 hours")
        return self


class MasterRing(msgspec.Struct, frozen=True):
    """What all services' keys are derived from. The name secret never changes: names are found by ciphertext."""

    terms: dict[int, Term]
    name_secret: bytes
    active: int = 0  # 0 in rings that an earlier version made, without a term in advance
    policy: RotationPolicy = RotationPolicy()

    def __repr__(self) -> str:
        return f"MasterRing(active_term={self.active_term})"

    @property
    def active_term(self) -> int:
        """The term that encrypts."""
        return self.active or max(self.terms)

    def rotated(self, now: float, revision: int) -> "MasterRing":
        """Returns the ring with the next term in use, and another in advance."""
        active = self.active_term + 1
        waiting = self.terms.get(active, _new_term())
        begun = msgspec.structs.replace(waiting, installed=now, revision=revision)
        terms = {**self.terms, active: begun, active + 1: _new_term()}
        return msgspec.structs.replace(self, terms=terms, active=active)

    def operations(self, revision: int) -> int:
        """Returns about how much the term in use has encrypted: the store's changes since it began."""
        return max(0, revision - self.terms[self.active_term].revision)

    def is_due(self, now: float, revision: int) -> bool:
        """Says whether the policy asks for a new term."""
        policy, term = self.policy, self.terms[self.active_term]
        old = policy.interval > 0 and now >= term.installed + policy.interval
        return policy.enabled and (old or self.operations(revision) >= policy.max_operations)

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


def new_ring(now: float, revision: int) -> MasterRing:
    """Returns a ring in its first term."""
    first = msgspec.structs.replace(_new_term(), installed=now, revision=revision)
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

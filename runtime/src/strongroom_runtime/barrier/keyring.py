"""The keys of one service's barrier, and where a process keeps them while it is unsealed."""

from collections.abc import Callable, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from strongroom_runtime.bounded import Bounded
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import LaterTermError

KEY_BYTES = 32
NAME_KEY_BYTES = 64
_SEGMENTS_BYTES, _PATHS_BYTES = 24 << 20, 16 << 20  # some 60,000 and 16,000 usual ones


class KeyRing:
    """The keys of one service.

    Args:
        terms: AES-256-GCM keys (32 bytes) by term. The active one encrypts, all decrypt.
        name_key: AES-SIV key (64 bytes). It is never rotated: names are found by their ciphertext.
        active: the term that encrypts; the highest where it is not given.

    Raises:
        ValueError: a key of the wrong length, no term, or an active one that is not there.
    """

    __slots__ = ("_aeads", "active_term", "names")

    def __init__(
        self, terms: Mapping[int, bytes], name_key: bytes, active: int | None = None
    ) -> None:
        if not terms or any(len(key) != KEY_BYTES for key in terms.values()):
            raise ValueError(f"a key ring needs keys of {KEY_BYTES} bytes")
        if len(name_key) != NAME_KEY_BYTES:
            raise ValueError(f"a name key has {NAME_KEY_BYTES} bytes")
        self._aeads = {term: AESGCM(key) for term, key in terms.items()}
        self.active_term = max(terms) if active is None else active
        if self.active_term not in terms:
            raise ValueError("the active term has no key")
        self.names = AESSIV(name_key)

    def __repr__(self) -> str:
        return f"KeyRing(active_term={self.active_term})"

    @property
    def active(self) -> AESGCM:
        """The cipher that encrypts."""
        return self._aeads[self.active_term]

    def decrypt(self, term: int, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Opens what a term's key sealed.

        Raises:
            LaterTermError: a process that has heard of more rotations sealed it, or so it says.
            ServiceError: INTERNAL where it was altered, moved, or sealed by a key that is not here.
        """
        aead = self._aeads.get(term)
        if aead is not None:
            try:
                return aead.decrypt(nonce, ciphertext, associated_data)
            except InvalidTag:
                pass
        elif term > max(self._aeads):
            raise LaterTermError
        raise ServiceError(Kind.INTERNAL, "a stored value does not open")


class KeyHolder:
    """Holds the ring of a process while it is unsealed, and nothing while it is sealed."""

    def __init__(self, ring: KeyRing | None = None) -> None:
        self._ring = ring
        # Encrypted names by segment: a name key never changes, so entries live as long as the ring.
        self.segments: Bounded[str, str] = Bounded(_SEGMENTS_BYTES)
        # The other way round, for lists.
        self.names: Bounded[str, str] = Bounded(_SEGMENTS_BYTES)
        # Storage keys by path. The types are part of the name: a `Plain` segment equals one that is not.
        self.paths: Bounded[tuple[object, ...], bytes] = Bounded(_PATHS_BYTES)
        # Told when the keys go, so that nothing decrypted outlives them.
        self.on_seal: list[Callable[[], None]] = []

    @property
    def sealed(self) -> bool:
        """Whether there are no keys."""
        return self._ring is None

    @property
    def ring(self) -> KeyRing:
        """The keys.

        Raises:
            ServiceError: SEALED.
        """
        if self._ring is None:
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        return self._ring

    def replace(self, ring: KeyRing | None) -> None:
        """Takes new keys after a rotation or an unseal; forgets all of them with None."""
        self._ring = ring
        if ring is None:
            self.segments.clear()
            self.names.clear()
            self.paths.clear()
            for forget in self.on_seal:
                forget()

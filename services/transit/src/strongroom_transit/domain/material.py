"""Key material: made, kept, loaded.

A symmetric version keeps its key as it is. Others keep the private half as PKCS #8 DER (ML-DSA: its seed inside), the
public half as SubjectPublicKeyInfo DER; where only a public half was imported, the private one is empty.
"""

import hmac
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom_runtime.errors import invalid
from strongroom_transit.domain.kinds import Family, KeyType
from strongroom_transit.domain.xchacha import XChaCha20Poly1305

HMAC_KEY_BYTES = 32
# Whose keys are kept with a version: so many, none of them longer, since contexts are the callers' choice.
_CONTEXTS, _CONTEXT_BYTES = 1_000, 256
CURVES: dict[int, Callable[[], ec.EllipticCurve]] = {
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
_AEADS: dict[str, Callable[[bytes], Any]] = {
    "chacha20-poly1305": ChaCha20Poly1305,
    "xchacha20-poly1305": XChaCha20Poly1305,
}
PRIVATE_ML_DSA: dict[int, Any] = {
    44: mldsa.MLDSA44PrivateKey,
    65: mldsa.MLDSA65PrivateKey,
    87: mldsa.MLDSA87PrivateKey,
}
PUBLIC_ML_DSA: dict[int, Any] = {
    44: mldsa.MLDSA44PublicKey,
    65: mldsa.MLDSA65PublicKey,
    87: mldsa.MLDSA87PublicKey,
}


class Version(msgspec.Struct, frozen=True):
    """One version of a key.

    Args:
        created: wall time in seconds since 1970.
        secret: the symmetric key, or the private half; empty where only the public half is known.
        public: the public half; empty for symmetric keys.
        hmac_key: for HMACs with this version. The key itself for type hmac.
        certificates: the chain set for it, leaf first, each DER.
    """

    created: float
    secret: bytes = b""
    public: bytes = b""
    hmac_key: bytes = b""
    certificates: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Version(created={self.created})"


def new_version(kind: KeyType, now: float, key_size: int = 0) -> Version:
    """Returns a new version. Takes up to seconds for RSA, without holding the interpreter.

    Args:
        kind: what to make.
        now: the time.
        key_size: bytes of an hmac key.
    """
    if kind.symmetric:
        secret = os.urandom(key_size or kind.size)
        own = secret if kind.family is Family.HMAC else os.urandom(HMAC_KEY_BYTES)
        return Version(now, secret, b"", own)
    private: Any
    if kind.family is Family.RSA:
        private = rsa.generate_private_key(65537, kind.size)
    elif kind.family is Family.ECDSA:
        private = ec.generate_private_key(CURVES[kind.size]())
    elif kind.family is Family.ED25519:
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = PRIVATE_ML_DSA[kind.size].generate()
    return Version(
        now, private_der(private), public_der(private.public_key()), os.urandom(HMAC_KEY_BYTES)
    )


def private_der(private: Any) -> bytes:
    """Returns a private key as PKCS #8 DER."""
    encoded: bytes = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return encoded


def public_der(public: Any) -> bytes:
    """Returns a public key as SubjectPublicKeyInfo DER."""
    encoded: bytes = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


class Loaded:
    """A version, ready for use. What is made of it is made once, on its first use.

    Args:
        kind: the key's type.
        version: as it is kept. It was made or checked here before it was kept, so it is not checked again.
        derived: whether a key for each context is derived from it.
        convergent: whether it encrypts convergently.
        counter_kdf: whether it is derived in counter mode.
    """

    def __init__(
        self,
        kind: KeyType,
        version: Version,
        *,
        derived: bool,
        convergent: bool,
        counter_kdf: bool = False,
    ) -> None:
        self.kind = kind
        self.version = version
        self._derived = derived
        self._convergent = convergent
        self._counter_kdf = counter_kdf
        self._contexts: dict[bytes, tuple[Any, bytes]] = {}

    def __repr__(self) -> str:
        return f"Loaded({self.kind.name})"

    @cached_property
    def private(self) -> Any:
        """The private half.

        Raises:
            ServiceError: INVALID where only the public one is known.
        """
        if not self.version.secret:
            raise invalid("the key version does not have a private part")
        return serialization.load_der_private_key(
            self.version.secret, None, unsafe_skip_rsa_key_validation=True
        )

    @cached_property
    def public(self) -> Any:
        """The public half."""
        return serialization.load_der_public_key(self.version.public)

    def cipher(self, context: bytes) -> tuple[Any, bytes]:
        """Returns the AEAD for a context, and the key that nonces are made of for convergent encryption.

        Without derivation the context means nothing.

        Raises:
            ServiceError: INVALID where a context is missing.
        """
        if not self._derived:
            return self._plain_cipher
        found = self._contexts.get(context)
        if found is None:
            found = self._derive(context)
            if len(context) > _CONTEXT_BYTES:
                return found
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            self._contexts[context] = found
        return found

    def signer(self, context: bytes) -> Any:
        """Returns the private key that signs in a context.

        Raises:
            ServiceError: INVALID where a context is missing, or the private half.
        """
        if not self._derived:
            return self.private
        # As Vault does: the input of HKDF is the seed and the public key behind it, as Go keeps an Ed25519 key.
        seed = self.private.private_bytes_raw() + self.private.public_key().public_bytes_raw()
        return ed25519.Ed25519PrivateKey.from_private_bytes(derive(seed, context, 32))

    @cached_property
    def _plain_cipher(self) -> tuple[Any, bytes]:
        return self._aead(self.version.secret), b""

    def _derive(self, context: bytes) -> tuple[Any, bytes]:
        size = self.kind.size
        if self._counter_kdf:
            return self._aead(derive_counting(self.version.secret, context)[:size]), b""
        key = derive(self.version.secret, context, size + 32 if self._convergent else size)
        return self._aead(key[:size]), key[size:]

    def _aead(self, key: bytes) -> Any:
        return _AEADS.get(self.kind.name, AESGCM)(key)


def derive(secret: bytes, context: bytes, size: int) -> bytes:
    """Returns a key for a context: HKDF-SHA256 (RFC 5869) without salt, the context as info.

    Raises:
        ServiceError: INVALID where there is no context.
    """
    _check_context(context)
    return HKDF(hashes.SHA256(), size, None, context).derive(secret)


def derive_counting(secret: bytes, context: bytes) -> bytes:
    """Returns 32 bytes for a context as Vault derives them of imported keys.

    That is one round of HMAC-SHA256 in counter mode (NIST SP 800-108), counted from 0: over the counter, the context
    and the number of bits.

    Raises:
        ServiceError: INVALID where there is no context.
    """
    _check_context(context)
    return hmac.digest(secret, bytes(4) + context + (256).to_bytes(4, "big"), "sha256")


def _check_context(context: bytes) -> None:
    if not context:
        raise invalid(
            "missing 'context' for key derivation; the key was created using a derived key, which means additional, "
            "per-request information must be included in order to perform operations with the key"
        )

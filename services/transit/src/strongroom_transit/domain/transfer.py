"""Key material on its way in and out: wrapping, what may come in, and the forms in which it goes out.

Wrapped material is an AES-256 key under RSA-OAEP, and behind it the material under AES-KWP (RFC 5649) with that key;
PKCS #11 calls it CKM_RSA_AES_KEY_WRAP. Symmetric keys go as they are, others as PKCS #8 DER.
"""

import base64
import os
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom_runtime.errors import invalid
from strongroom_transit.domain.keys import HMAC_MAX, HMAC_MIN, Key
from strongroom_transit.domain.kinds import Family, KeyType
from strongroom_transit.domain.material import (
    CURVES,
    HMAC_KEY_BYTES,
    PRIVATE_ML_DSA,
    PUBLIC_ML_DSA,
    Loaded,
    Version,
    private_der,
    public_der,
)

WRAPPING_BITS = 4096
MAX_BYTES = 64 << 10  # of what is imported
_EPHEMERAL_BYTES = 32  # of the AES key between the wrapping key and what is imported
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1,
    "SHA224": hashes.SHA224,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_PKCS8 = serialization.PrivateFormat.PKCS8
_OLD = serialization.PrivateFormat.TraditionalOpenSSL
_OPEN = serialization.NoEncryption()
KINDS = (
    "encryption-key",
    "signing-key",
    "hmac-key",
    "cmac-key",
    "public-key",
    "certificate-chain",
)


def new_wrapping_key() -> bytes:
    """Returns a new wrapping key as PKCS #8 DER. Takes a second, without holding the interpreter."""
    return private_der(rsa.generate_private_key(65537, WRAPPING_BITS))


def wrap(public: Any, material: bytes, hash_name: str) -> bytes:
    """Returns material wrapped for who has the private half of an RSA key.

    Raises:
        ServiceError: INVALID; there is no such hash, or the key is of another type.
    """
    if not isinstance(public, rsa.RSAPublicKey):
        raise invalid("destination: must be an RSA key")
    ephemeral = os.urandom(_EPHEMERAL_BYTES)
    return public.encrypt(ephemeral, _oaep(hash_name)) + keywrap.aes_key_wrap_with_padding(
        ephemeral, material
    )


def unwrap(wrapping_key: bytes, wrapped: bytes, hash_name: str) -> bytes:
    """Returns the material of a wrapped key.

    Args:
        wrapping_key: the private half, PKCS #8 DER.
        wrapped: as `wrap` gives it.
        hash_name: that of OAEP.

    Raises:
        ServiceError: INVALID; one text for all that may be wrong inside, so that nothing can be learned by trying.
    """
    oaep = _oaep(hash_name)
    private: Any = serialization.load_der_private_key(
        wrapping_key, None, unsafe_skip_rsa_key_validation=True
    )
    size = private.key_size // 8
    if not size < len(wrapped) <= size + MAX_BYTES:
        raise invalid("ciphertext: is too short or too long for a wrapped key")
    try:
        ephemeral = private.decrypt(wrapped[:size], oaep)
        if len(ephemeral) != _EPHEMERAL_BYTES:
            raise ValueError
        return keywrap.aes_key_unwrap_with_padding(ephemeral, wrapped[size:])
    except (ValueError, keywrap.InvalidUnwrap):
        raise invalid(
            "ciphertext: does not unwrap with the wrapping key and hash_function"
        ) from None


def imported(kind: KeyType, material: bytes, now: float) -> Version:
    """Returns a version of material that came in. Numbers of RSA keys are not checked against each other here.

    Raises:
        ServiceError: INVALID; it does not fit the type.
    """
    if kind.symmetric:
        fits = (
            HMAC_MIN <= len(material) <= HMAC_MAX
            if kind.family is Family.HMAC
            else len(material) == kind.size
        )
        if not fits:
            raise invalid(f"ciphertext: has a key of the wrong size for type {kind.name}")
        own = material if kind.family is Family.HMAC else os.urandom(HMAC_KEY_BYTES)
        return Version(now, material, b"", own)
    try:
        private: Any = serialization.load_der_private_key(
            material, None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("ciphertext: has no private key in PKCS #8 DER inside") from None
    return of_private(kind, private, now)


def of_private(kind: KeyType, private: Any, now: float) -> Version:
    """Returns a version of a private key.

    Raises:
        ServiceError: INVALID; it is of another type.
    """
    if not _fits(kind, private, private=True):
        raise invalid(f"type: the key is not one of type {kind.name}")
    return Version(
        now, private_der(private), public_der(private.public_key()), os.urandom(HMAC_KEY_BYTES)
    )


def imported_public(kind: KeyType, pem: str, now: float) -> Version:
    """Returns a version with a public half alone.

    Raises:
        ServiceError: INVALID; it is no public key, or not one of the type.
    """
    if kind.symmetric:
        raise invalid(f"public_key: keys of type {kind.name} have none")
    public = public_of_pem(pem, "public_key")
    if not _fits(kind, public, private=False):
        raise invalid(f"public_key: is not one of type {kind.name}")
    return Version(now, b"", public_der(public), os.urandom(HMAC_KEY_BYTES))


def public_of_pem(pem: str, field: str) -> Any:
    """Returns a public key.

    Raises:
        ServiceError: INVALID; it names the field.
    """
    try:
        return serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise invalid(f"{field}: takes a public key in PEM") from None


def material_of(key: Key, version: Version) -> bytes:
    """Returns what goes out wrapped.

    Raises:
        ServiceError: INVALID where only the public half is known.
    """
    if not version.secret:
        raise invalid("the key version does not have a private part")
    return version.secret


def check_export(key: Key, kind: str) -> None:
    """Raises where a key does not go out in a way.

    Args:
        key: its settings.
        kind: one of KINDS.

    Raises:
        ServiceError: INVALID.
    """
    key.check_usable()
    if kind not in KINDS:
        raise invalid(f"invalid export type; it is one of {', '.join(KINDS)}")
    if not key.exportable and kind not in ("public-key", "certificate-chain"):
        raise invalid("private key material is not exportable")
    able = {
        "encryption-key": key.kind.encrypts,
        "signing-key": key.kind.signs,
        "hmac-key": key.kind.family is not Family.CMAC,
        "cmac-key": key.kind.family is Family.CMAC,
        "public-key": not key.kind.symmetric and not key.derived,
        "certificate-chain": not key.kind.symmetric,
    }
    if not able[kind]:
        raise invalid(f"keys of type {key.type} have no {kind}")


def exported(key: Key, version: Version, kind: str, form: str) -> str:
    """Returns a version as text.

    Args:
        key: its settings.
        version: what to export.
        kind: one of KINDS, checked.
        form: raw, der or pem; empty for what Vault gives.

    Raises:
        ServiceError: INVALID; there is no such form of it, or only the public half is known.
    """
    if form not in ("", "raw", "der", "pem"):
        raise invalid("format: takes raw, der or pem")
    if kind == "certificate-chain":
        if form not in ("", "pem"):
            raise invalid("format: a certificate chain is given as pem alone")
        return chain_pem(version)
    if kind == "hmac-key" or key.kind.symmetric:
        if form not in ("", "raw"):
            raise invalid("format: this key is given as raw alone")
        return _base64(version.hmac_key if kind == "hmac-key" else version.secret)
    loaded = Loaded(key.kind, version, derived=False, convergent=False)
    if kind == "public-key":
        return _public_text(key.kind, loaded.public, form)
    return _private_text(key.kind, loaded.private, form)


def chain_pem(version: Version) -> str:
    """Returns the certificates of a version, leaf first."""
    return "".join(_pem("CERTIFICATE", der) for der in version.certificates)


def agreed(private: Any, peer: Any, size: int) -> bytes:
    """Returns a key agreed on by ECDH (NIST SP 800-56A) and HKDF-SHA256 without salt and info.

    Raises:
        ServiceError: INVALID; the two are not on one curve.
    """
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise invalid("base_key_name: must name an ECDSA key")
    if not isinstance(peer, ec.EllipticCurvePublicKey) or peer.curve.name != private.curve.name:
        raise invalid("peer_public_key: is not on the curve of the base key")
    return HKDF(hashes.SHA256(), size, None, None).derive(private.exchange(ec.ECDH(), peer))


def _oaep(hash_name: str) -> padding.OAEP:
    made = _HASHES.get((hash_name or "SHA256").upper())
    if made is None:
        raise invalid(f"hash_function: takes one of {', '.join(_HASHES)}")
    return padding.OAEP(padding.MGF1(made()), made(), None)


def _fits(kind: KeyType, half: Any, *, private: bool) -> bool:
    if kind.family is Family.RSA:
        rsa_type: Any = rsa.RSAPrivateKey if private else rsa.RSAPublicKey
        return isinstance(half, rsa_type) and half.key_size == kind.size
    if kind.family is Family.ECDSA:
        ec_type: Any = ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey
        return isinstance(half, ec_type) and half.curve.name == CURVES[kind.size]().name
    if kind.family is Family.ED25519:
        return isinstance(half, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey)
    return isinstance(half, (PRIVATE_ML_DSA if private else PUBLIC_ML_DSA)[kind.size])


def _private_text(kind: KeyType, private: Any, form: str) -> str:
    raw = kind.family in (Family.ED25519, Family.ML_DSA)
    if form == "raw" and not raw:
        raise invalid("format: this key is given as der or pem")
    if form == "der":
        return _base64(private.private_bytes(_DER, _PKCS8, _OPEN))
    if form == "pem":
        return str(private.private_bytes(_PEM, _PKCS8, _OPEN).decode())
    if not raw:
        return str(private.private_bytes(_PEM, _OLD, _OPEN).decode())
    secret = private.private_bytes_raw()
    if kind.family is Family.ED25519:  # as Go keeps it, and Vault gives it
        secret += private.public_key().public_bytes_raw()
    return _base64(secret)


def _public_text(kind: KeyType, public: Any, form: str) -> str:
    raw = kind.family in (Family.ED25519, Family.ML_DSA)
    if form == "raw" and not raw:
        raise invalid("format: this key is given as der or pem")
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    if form == "der":
        return _base64(public.public_bytes(_DER, info))
    if form == "pem" or not raw:
        return str(public.public_bytes(_PEM, info).decode())
    return _base64(public.public_bytes_raw())


def _pem(label: str, der: bytes) -> str:
    text = _base64(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

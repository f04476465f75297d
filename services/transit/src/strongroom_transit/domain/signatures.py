"""Signatures and HMACs: functions of a keyset and an input, without I/O.

A signature is `vault:v<version>:` and base64: of DER for ECDSA (for `jws`, base64url of r and s without padding, RFC
7515 and 7518), of the raw signature for RSA (RFC 8017), Ed25519 (RFC 8032) and ML-DSA (FIPS 204). An HMAC (RFC 2104)
is made with a key that each version has beside its own; of type hmac, with the key itself.
"""

import base64
import hmac
from dataclasses import dataclass
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from strongroom_runtime.errors import invalid
from strongroom_runtime.tools import base64_bytes, hash_name
from strongroom_transit.domain import macs
from strongroom_transit.domain.keyset import PREFIX, Keyset, split
from strongroom_transit.domain.kinds import Family, KeyType
from strongroom_transit.domain.material import Loaded

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - asked for by name, for signatures of old systems
    "sha2-224": hashes.SHA224(),
    "sha2-256": hashes.SHA256(),
    "sha2-384": hashes.SHA384(),
    "sha2-512": hashes.SHA512(),
    "sha3-224": hashes.SHA3_224(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}
_USUAL = "sha2-256"
_BY_SIZE = {each.digest_size: each for each in _HASHES.values()}
_LONGEST = _HASHES["sha2-512"]
# Of salts, what is no number of bytes: 0 and -1 are what Go's library, and so Vault, takes auto and hash for.
_SALTS = {"": "auto", "auto": "auto", "0": "auto", "hash": "hash", "-1": "hash"}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a signature is made.

    Args:
        hash_name: one of those above, or none; empty for the usual one.
        prehashed: the input is a hash already.
        signature: of RSA: pss or pkcs1v15; empty for pss.
        marshaling: of ECDSA: asn1 or jws; empty for asn1.
        salt: of pss: auto, hash or a number of bytes; empty for auto. 0 is auto and -1 is hash, as in Vault.
    """

    hash_name: str = ""
    prehashed: bool = False
    signature: str = ""
    marshaling: str = ""
    salt: str = ""

    def check(self, kind: KeyType) -> None:
        """Raises where the scheme is not one for keys of a type.

        Raises:
            ServiceError: INVALID; it names the parameter.
        """
        if not kind.signs:
            raise invalid(f"key type {kind.name} does not support signing")
        if self.hash_name not in ("", "none", *_HASHES):
            raise invalid(f"hash_algorithm: takes one of {', '.join(_HASHES)}, none")
        # Other keys have no such choice, and pass over what is said of it, as in Vault.
        if kind.family is Family.RSA and self.signature not in ("", "pss", "pkcs1v15"):
            raise invalid("signature_algorithm: takes pss or pkcs1v15")
        if self.marshaling not in ("", "asn1", "jws"):
            raise invalid("marshaling_algorithm: takes asn1 or jws")
        if self.salt.lower() not in _SALTS and not (
            self.salt.isascii() and self.salt.isdigit() and len(self.salt) < 5
        ):
            raise invalid("salt_length: takes auto, hash or a number of bytes")
        bare = kind.family is Family.RSA and self.signature == "pkcs1v15" and self.prehashed
        if self.hash_name == "none" and kind.family in (Family.RSA, Family.ECDSA) and not bare:
            raise invalid(
                "hash_algorithm: none is for prehashed input of RSA keys with pkcs1v15 alone"
            )
        if self.prehashed and kind.family in (Family.ED25519, Family.ML_DSA):
            raise invalid(f"prehashed: is not supported for keys of type {kind.name}")

    @property
    def digest(self) -> Any:
        """The hash as cryptography takes it."""
        if self.hash_name == "none":
            return utils.NoDigestInfo()
        found = _HASHES[self.hash_name or _USUAL]
        return utils.Prehashed(found) if self.prehashed else found

    def for_ecdsa(self, data: bytes, size: int) -> tuple[bytes, ec.ECDSA]:
        """Returns what to sign with ECDSA, and how.

        What is hashed already is taken as it is, as in Vault: unlike RSA's, these signatures do not name the hash. Of
        what is longer than the key's order the first bytes count (FIPS 186-5, section 6.4.1); what is shorter is a
        smaller number, and with zeros before it as long as a hash that cryptography knows.

        Args:
            data: as it came.
            size: of the curve, in bits.

        Raises:
            ValueError: there are no data, or too many for P-521, whose order no hash is as long as.
        """
        if not self.prehashed:
            return data, ec.ECDSA(self.digest)
        whole = (size + 7) // 8
        known = min(whole, _LONGEST.digest_size)
        if not data or (len(data) > known and known < whole):
            raise ValueError
        return data[:known].rjust(known, b"\0"), ec.ECDSA(utils.Prehashed(_BY_SIZE[known]))

    def padding(self, *, verifying: bool) -> Any:
        """The padding of an RSA signature."""
        if self.signature == "pkcs1v15":
            return padding.PKCS1v15()
        auto = padding.PSS.AUTO if verifying else padding.PSS.MAX_LENGTH
        named: dict[str, Any] = {"auto": auto, "hash": padding.PSS.DIGEST_LENGTH}
        given = self.salt.lower()
        salt = named[_SALTS[given]] if given in _SALTS else int(given)
        return padding.PSS(padding.MGF1(_HASHES[self.hash_name or _USUAL]), salt)


class Signed(NamedTuple):
    """A signature, the version it was made with, and for derived keys the public key of the context."""

    signature: str
    version: int
    public_key: bytes | None


def sign(keyset: Keyset, data: bytes, context: bytes, wanted: int, scheme: Scheme) -> Signed:
    """Returns a signature.

    Args:
        keyset: the key.
        data: what to sign.
        context: for derived keys.
        wanted: the version, or 0 for the newest.
        scheme: checked.

    Raises:
        ServiceError: INVALID.
    """
    key = keyset.key
    number = key.version_for_encryption(wanted)
    private = keyset.version(number).signer(context)
    try:
        raw = _raw_signature(key.kind, private, data, scheme)
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("input: does not fit the hash, the salt or the key") from None
    public = private.public_key().public_bytes_raw() if key.derived else None
    return Signed(f"{PREFIX}{number}:{_encode(key.kind, raw, scheme)}", number, public)


def verify(keyset: Keyset, data: bytes, text: str, context: bytes, scheme: Scheme) -> bool:
    """Returns whether a signature is genuine. Never for one of another key, version or scheme.

    Raises:
        ServiceError: INVALID; the signature is malformed or of a version that is too old.
    """
    number, body = split(text, "signature")
    keyset.key.check_decryption(number, "signature")
    kind, loaded = keyset.key.kind, keyset.version(number)
    raw = _decode(kind, body, scheme)
    try:
        public = loaded.signer(context).public_key() if keyset.key.derived else loaded.public
        _check_signature(kind, public, raw, data, scheme)
    except InvalidSignature:
        return False
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("input: does not fit the hash, the salt or the key") from None
    return True


def check_hmac(algorithm: str) -> None:
    """Raises where HMACs are not made with a hash.

    Raises:
        ServiceError: INVALID.
    """
    _hmac_hash(algorithm)


def make_hmac(keyset: Keyset, data: bytes, wanted: int, algorithm: str) -> str:
    """Returns an HMAC of some data, made with a version or (0) the newest.

    Raises:
        ServiceError: INVALID.
    """
    return macs.make(keyset, wanted, lambda loaded: _tag(loaded, data, algorithm))


def verify_hmac(keyset: Keyset, data: bytes, text: str, algorithm: str) -> bool:
    """Returns whether an HMAC is genuine.

    Raises:
        ServiceError: INVALID; it is malformed or of a version that is too old.
    """
    return macs.verify(keyset, text, "hmac", lambda loaded: _tag(loaded, data, algorithm))


def _tag(loaded: Loaded, data: bytes, algorithm: str) -> bytes:
    return hmac.digest(loaded.version.hmac_key, data, _hmac_hash(algorithm))


def _hmac_hash(algorithm: str) -> str:
    # HMACs of old systems, as in OpenBao: what breaks SHA-1's collision resistance does not break them.
    return algorithm if algorithm == "sha1" else hash_name(algorithm or _USUAL)


def _raw_signature(kind: KeyType, private: Any, data: bytes, scheme: Scheme) -> bytes:
    signed: bytes
    if kind.family is Family.RSA:
        signed = private.sign(data, scheme.padding(verifying=False), scheme.digest)
    elif kind.family is Family.ECDSA:
        signed = private.sign(*scheme.for_ecdsa(data, kind.size))
    else:
        signed = private.sign(data)
    return signed


def _check_signature(kind: KeyType, public: Any, raw: bytes, data: bytes, scheme: Scheme) -> None:
    if kind.family is Family.RSA:
        public.verify(raw, data, scheme.padding(verifying=True), scheme.digest)
    elif kind.family is Family.ECDSA:
        public.verify(raw, *scheme.for_ecdsa(data, kind.size))
    else:
        public.verify(raw, data)


def _encode(kind: KeyType, raw: bytes, scheme: Scheme) -> str:
    if kind.family is not Family.ECDSA or scheme.marshaling != "jws":
        return base64.b64encode(raw).decode()
    size = (kind.size + 7) // 8
    both = b"".join(part.to_bytes(size, "big") for part in utils.decode_dss_signature(raw))
    return _base64url(both)


def _decode(kind: KeyType, text: str, scheme: Scheme) -> bytes:
    try:
        if kind.family is not Family.ECDSA or scheme.marshaling != "jws":
            return base64_bytes(text)
        both = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if _base64url(both) != text:  # what is no character of it is passed over above
            raise ValueError
    except ValueError:
        raise invalid("invalid signature: could not decode base64") from None
    half = len(both) // 2
    if len(both) != 2 * ((kind.size + 7) // 8):
        raise invalid("invalid signature: wrong length")
    return utils.encode_dss_signature(
        int.from_bytes(both[:half], "big"), int.from_bytes(both[half:], "big")
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""Requests for certificates (RFC 2986) by keys, and the chains that come of them (RFC 5280)."""

import itertools
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from strongroom_runtime.errors import invalid
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.kinds import Family
from strongroom_transit.domain.material import Loaded, Version, public_der

MAX_CHAIN = 16
MAX_BYTES = 256 << 10
_HASHES: dict[int, Any] = {384: hashes.SHA384, 521: hashes.SHA512}


def check_certifiable(key: Key) -> None:
    """Raises where certificates are not for a key.

    Raises:
        ServiceError: INVALID.
    """
    key.check_usable()
    if not key.kind.signs or key.derived:
        raise invalid(
            f"keys of type {key.type} that are derived, or do not sign, have no certificates"
        )


def request(key: Key, loaded: Loaded, template: str) -> str:
    """Returns a request for a certificate, PEM.

    Args:
        key: its settings, of a type that signs.
        loaded: the version.
        template: a request, PEM, whose subject and extensions are taken; empty for none.

    Raises:
        ServiceError: INVALID; the template is none, or the version has no private half.
    """
    builder = x509.CertificateSigningRequestBuilder()
    try:
        subject, extensions = _read(template) if template else (x509.Name([]), [])
        builder = builder.subject_name(subject)
        for each in extensions:
            builder = builder.add_extension(each.value, each.critical)
        made = builder.sign(loaded.private, _hash(key))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("csr: takes a request for a certificate in PEM") from None
    return made.public_bytes(serialization.Encoding.PEM).decode()


def with_chain(version: Version, text: str) -> Version:
    """Returns a version with a chain.

    Args:
        version: as it is.
        text: PEM, leaf first.

    Raises:
        ServiceError: INVALID; it is no chain, or not one of this version.
    """
    if len(text) > MAX_BYTES:
        raise invalid(f"certificate_chain: may have at most {MAX_BYTES} bytes")
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        matches = public_der(chain[0].public_key()) == version.public
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("certificate_chain: takes certificates in PEM") from None
    if len(chain) > MAX_CHAIN:
        raise invalid(f"certificate_chain: may have at most {MAX_CHAIN} certificates")
    if not matches:
        raise invalid("certificate_chain: the first certificate is not of this version of the key")
    for one, issuer in itertools.pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise invalid("certificate_chain: each must be signed by the one behind it") from None
    return Version(
        version.created,
        version.secret,
        version.public,
        version.hmac_key,
        tuple(each.public_bytes(serialization.Encoding.DER) for each in chain),
    )


def _read(template: str) -> tuple[x509.Name, list[x509.Extension[x509.ExtensionType]]]:
    given = x509.load_pem_x509_csr(template.encode())
    return given.subject, list(given.extensions)


def _hash(key: Key) -> Any:
    if key.kind.family in (Family.ED25519, Family.ML_DSA):
        return None
    return _HASHES.get(key.kind.size, hashes.SHA256)()

"""Keys and certificates to log in with (Vault documentation, "Database secrets engine", credential_config)."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom_runtime.errors import invalid

_RSA_BITS = (2048, 3072, 4096)
_CURVES = {224: ec.SECP224R1(), 256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
_HASHES: dict[int, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    512: hashes.SHA512(),
}
_BACKDATED = datetime.timedelta(seconds=30)  # clocks differ

_Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate and its key, PEM; `subject` as RFC 4514 writes it, with the one common name alone."""

    certificate: str
    subject: str
    common_name: str
    key_type: str
    private_key: str = field(repr=False)


def check_rsa(config: Mapping[str, str]) -> int:
    """Returns the size of RSA keys by a credential_config.

    Raises:
        ServiceError: INVALID.
    """
    _only(config, ("key_bits", "format"))
    if config.get("format", "").lower() not in ("", "pkcs8"):
        raise invalid("credential_config: format takes pkcs8")
    return _bits(config, "key_bits", _RSA_BITS, 2048)


def rsa_key(bits: int) -> str:
    """Returns a new RSA key, PKCS#8 PEM."""
    return _private_pem(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def rsa_public(private_pem: str) -> str:
    """Returns the public half of an RSA key, SubjectPublicKeyInfo PEM."""
    key = load_pem_private_key(private_pem.encode(), None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True, slots=True)
class Issuing:
    """How client certificates are made, checked. Without a template the common name is that of the user."""

    ca: x509.Certificate
    ca_key: _Private = field(repr=False)
    template: str
    key_type: str
    key_bits: int
    signature_bits: int


def check_certificate(config: Mapping[str, str]) -> Issuing:
    """Returns how client certificates are made by a credential_config.

    Raises:
        ServiceError: INVALID.
    """
    known = (
        "ca_cert", "ca_private_key", "common_name_template", "key_type", "key_bits", "signature_bits",
    )  # fmt: skip
    _only(config, known)
    for name in ("ca_cert", "ca_private_key"):
        if not config.get(name):
            raise invalid(f"credential_config: {name} must be given")
    key_type = config.get("key_type", "")
    if key_type not in ("rsa", "ec", "ed25519"):
        raise invalid("credential_config: key_type takes rsa, ec or ed25519")
    bits = 0
    if key_type != "ed25519":
        allowed = _RSA_BITS if key_type == "rsa" else tuple(_CURVES)
        bits = _bits(config, "key_bits", allowed, 2048 if key_type == "rsa" else 256)
    try:
        ca = x509.load_pem_x509_certificate(config["ca_cert"].encode())
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound):
        raise invalid("credential_config: ca_cert must be the certificate of a CA, PEM") from None
    if not constraints.ca:
        raise invalid("credential_config: ca_cert is not marked as a CA")
    try:
        ca_key = load_pem_private_key(config["ca_private_key"].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("credential_config: ca_private_key must be a key, PEM") from None
    if not isinstance(ca_key, _Private) or ca_key.public_key() != ca.public_key():
        raise invalid("credential_config: ca_private_key is not the key of ca_cert")
    signature = _bits(config, "signature_bits", tuple(_HASHES), 256)
    template = config.get("common_name_template", "")
    return Issuing(ca, ca_key, template, key_type, bits, signature)


def certificate(issuing: Issuing, common_name: str, now: float, expires: float) -> Certificate:
    """Returns a new client certificate.

    Raises:
        ServiceError: INVALID where the name cannot stand in a certificate.
    """
    key: _Private
    if issuing.key_type == "rsa":
        key = rsa.generate_private_key(public_exponent=65537, key_size=issuing.key_bits)
    elif issuing.key_type == "ec":
        key = ec.generate_private_key(_CURVES[issuing.key_bits])
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    try:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError:
        raise invalid(
            "credential_config: common_name_template must make 1 to 64 characters"
        ) from None
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuing.ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now) - _BACKDATED)
        .not_valid_after(min(_time(expires), issuing.ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing.ca.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(
            issuing.ca_key,
            None
            if isinstance(issuing.ca_key, ed25519.Ed25519PrivateKey)
            else _HASHES[issuing.signature_bits],
        )
    )
    return Certificate(
        signed.public_bytes(Encoding.PEM).decode(),
        subject.rfc4514_string(),
        common_name,
        issuing.key_type,
        _private_pem(key),
    )


def _private_pem(key: _Private) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _only(config: Mapping[str, str], known: tuple[str, ...]) -> None:
    if unknown := sorted(config.keys() - set(known)):
        raise invalid(
            f"credential_config: {unknown[0][:40]} is unknown; it takes {', '.join(known)}"
        )


def _bits(config: Mapping[str, str], name: str, allowed: tuple[int, ...], usual: int) -> int:
    given = config.get(name) or str(usual)
    if given not in map(str, allowed):
        raise invalid(f"credential_config: {name} takes {', '.join(map(str, allowed))}")
    return int(given)

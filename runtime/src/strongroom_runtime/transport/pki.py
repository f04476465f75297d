"""The internal certificate authority: one CA, one certificate for each service.

The identity of a service is the URI SAN `spiffe://<trust-domain>/service/<name>` of its certificate (SPIFFE-ID
specification, section 2). Every certificate also names `localhost` and the loopback addresses, and the host
names given, so that the ordinary check of the server's name holds as well.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom_runtime.files import write_whole

_CA_DAYS = 3650
_LEAF_DAYS = 825
_BACKDATE = datetime.timedelta(minutes=5)  # clocks of other machines may be behind


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return "Authority(…)"


def create_authority(trust_domain: str) -> Authority:
    """Returns a new CA (P-256) for a trust domain."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain} internal CA")])
    builder = _builder(name, name, key.public_key(), _CA_DAYS)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(
    authority: Authority,
    trust_domain: str,
    service: str,
    hosts: Sequence[str] = (),
) -> tuple[bytes, bytes]:
    """Returns the certificate and the key (PEM) of one service, good for both ends of mutual TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = _builder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)]),
        issuer.subject,
        key.public_key(),
        _LEAF_DAYS,
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(_names(trust_domain, service, hosts), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def initialise(
    folder: Path, trust_domain: str, services: Sequence[str], hosts: Sequence[str] = ()
) -> None:
    """Creates the CA and the services' certificates that are missing in a folder.

    Writes `ca.pem`, `ca.key`, `<service>.pem`, `<service>.key`; keys with mode 0600, each file whole or not at all.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _load_or_create(folder, trust_domain)
    for service in services:
        if not (folder / f"{service}.pem").exists():
            certificate, key = issue(authority, trust_domain, service, hosts)
            # The key goes first: a crash in between leaves no certificate, and both are made anew.
            write_whole(folder / f"{service}.key", key)
            write_whole(folder / f"{service}.pem", certificate)


def _load_or_create(folder: Path, trust_domain: str) -> Authority:
    certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
    if certificate_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_file} holds no elliptic-curve key")
        return Authority(x509.load_pem_x509_certificate(certificate_file.read_bytes()), key)
    authority = create_authority(trust_domain)
    write_whole(key_file, _pem(authority.key))
    write_whole(certificate_file, authority.certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _names(trust_domain: str, service: str, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/service/{service}")
    ]
    for host in ("localhost", "127.0.0.1", "::1", *hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

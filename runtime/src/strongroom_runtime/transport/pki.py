"""The internal certificate authority: one CA, one certificate for each service.

What a certificate says of its service is in `transport/names.py`. Every certificate also names `localhost` and the
loopback addresses, and the host names given, for clients and for the members of etcd.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom_runtime.files import write_whole
from strongroom_runtime.transport import names

_CA_DAYS = 3650
_LEAF_DAYS = 825
_RENEWAL = datetime.timedelta(
    days=275
)  # before the end, so that some start or `pki init` falls into it
_BACKDATE = datetime.timedelta(minutes=5)  # clocks of other machines may be behind
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class CertificateError(ValueError):
    """A certificate is not what its service needs. The text names the file, and what to do."""


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
    service: str,
    key: ec.EllipticCurvePublicKey,
    subject_names: Iterable[x509.GeneralName],
) -> bytes:
    """Returns the certificate (PEM) of one service, good for both ends of mutual TLS."""
    issuer = authority.certificate
    builder = _builder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)]),
        issuer.subject,
        key,
        _LEAF_DAYS,
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(subject_names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def initialise(
    folder: Path, trust_domain: str, services: Sequence[str], hosts: Sequence[str] = ()
) -> list[str]:
    """Creates the CA and the services' certificates that are missing in a folder, and brings the others up to date.

    Writes `ca.pem`, `ca.key`, `<service>.pem`, `<service>.key`; keys with mode 0600, each file whole or not at all.
    A certificate that lacks names, or ends before long, is issued anew: the same key, CA and hosts, and what lacks.

    Returns:
        The services whose certificates were made or issued anew.

    Raises:
        ValueError: a name is not one, or a host name could pass for a service.
        CertificateError: a certificate cannot be brought up to date.
        OSError: a file cannot be read or written.
    """
    names.check_domain(trust_domain)
    for service in services:
        names.check_service(service)
    for host in hosts:
        names.check_host(host, trust_domain)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = [names.of_host(host) for host in (*_LOOPBACK, *hosts)]
    due = {}
    for service in services:
        needed = [*names.of_service(service, trust_domain), *wanted]
        certificate = _found(folder, service, trust_domain)
        present = names.in_certificate(certificate) if certificate else []
        if certificate is None or _ends(certificate) or not set(needed) <= set(present):
            due[service] = [*needed, *present]
    if due or not (folder / "ca.pem").exists():
        authority = _load_or_create(folder, trust_domain)
        for service, subject_names in due.items():
            _write(folder, service, authority, subject_names)
    return list(due)


def check(folder: Path, trust_domain: str, services: Iterable[str]) -> None:
    """Refuses certificates by which callers would not know the services of a process, before it starts.

    Raises:
        CertificateError: one lacks a name, or has one that belongs to another service.
        OSError: one cannot be read.
    """
    for service in services:
        certificate = _found(folder, service, trust_domain)
        if certificate is None:
            raise CertificateError(
                f"{_file(folder, service)}: is missing. Where the CA is, run `strongroom pki init --dir FOLDER"
                f" --trust-domain {trust_domain}`, which makes it, and bring it here"
            )
        lacking = _lacking(certificate, service, trust_domain)
        if lacking:
            raise CertificateError(
                f"{_file(folder, service)}: does not name {lacking}. Where the CA is,"
                f" run `strongroom pki init --dir FOLDER --trust-domain {trust_domain}`, which issues it anew with"
                " the same key, and bring it here"
            )


def check_names(certificate: x509.Certificate, service: str, trust_domain: str) -> None:
    """Refuses a renewed certificate by which callers would not know a service, or which names another.

    Raises:
        CertificateError.
    """
    lacking = _lacking(certificate, service, trust_domain)
    if lacking:
        raise CertificateError(f"does not name {lacking}")
    others = _foreign(certificate, service, trust_domain)
    if others:
        raise CertificateError(f"names {others}, and so could pass for what it is not")


def _file(folder: Path, service: str) -> Path:
    return folder / f"{service}.pem"


def _ends(certificate: x509.Certificate) -> bool:
    now = datetime.datetime.now(datetime.UTC)
    return certificate.not_valid_after_utc - now < _RENEWAL


def _found(folder: Path, service: str, trust_domain: str) -> x509.Certificate | None:
    """Returns the certificate of a service, if there is one; refuses it where it names another service."""
    file = _file(folder, service)
    if not file.exists():
        return None
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError as error:
        raise CertificateError(f"{file}: is no certificate") from error
    others = _foreign(certificate, service, trust_domain)
    if others:
        raise CertificateError(
            f"{file}: names {others}, and so could pass for what it is not in the"
            f" trust domain {trust_domain}. Make a new CA in another folder: certificates that were made stay valid"
        )
    return certificate


def _lacking(certificate: x509.Certificate, service: str, trust_domain: str) -> str:
    """Returns the names that a certificate has to have and has not; empty where there are none."""
    present = names.in_certificate(certificate)
    own = names.of_service(service, trust_domain)
    return " and ".join(names.shown(name) for name in own if name not in present)


def _foreign(certificate: x509.Certificate, service: str, trust_domain: str) -> str:
    """Returns the names of other services that a certificate has; empty where there are none."""
    own = names.of_service(service, trust_domain)
    return " and ".join(
        names.shown(name)
        for name in names.in_certificate(certificate)
        if name not in own
        and (
            isinstance(name, x509.UniformResourceIdentifier) or names.is_within(name, trust_domain)
        )
    )


def _write(
    folder: Path, service: str, authority: Authority, subject_names: Iterable[x509.GeneralName]
) -> None:
    """Issues the certificate of a service, with a new key where it has none."""
    file, key_file = _file(folder, service), folder / f"{service}.key"
    if file.exists():
        _check_issuer(file, authority)
        key = _load_key(key_file)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        # The key goes first: a crash in between leaves no certificate, and both are made anew.
        write_whole(key_file, _pem(key))
    unique = list(dict.fromkeys(subject_names))
    write_whole(file, issue(authority, service, key.public_key(), unique))


def _check_issuer(file: Path, authority: Authority) -> None:
    try:
        x509.load_pem_x509_certificate(file.read_bytes()).verify_directly_issued_by(
            authority.certificate
        )
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError(
            f"{file}: lacks names by which its service is known, and is not of the CA beside it; issue it anew with"
            " its own, or remove it"
        ) from error


def _load_or_create(folder: Path, trust_domain: str) -> Authority:
    certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
    if certificate_file.exists():
        if not key_file.exists():
            raise CertificateError(
                f"{key_file}: is missing, and certificates have to be made: run `strongroom pki init` where it is"
            )
        return Authority(
            x509.load_pem_x509_certificate(certificate_file.read_bytes()), _load_key(key_file)
        )
    authority = create_authority(trust_domain)
    write_whole(key_file, _pem(authority.key))
    write_whole(certificate_file, authority.certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{file}: holds no elliptic-curve key")
    return key


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

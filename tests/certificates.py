"""Certificates as earlier versions made them: without the names by which callers know services."""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom_runtime.transport import names, pki


def age(folder: Path, trust_domain: str, services: Sequence[str], *hosts: str) -> None:
    """Puts certificates of an earlier version, with the same keys, in the place of those in a folder."""
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    for service in services:
        file = folder / f"{service}.pem"
        key = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        uri = x509.UniformResourceIdentifier(names.identity_of(service, trust_domain))
        others = [names.of_host(host) for host in ("localhost", "127.0.0.1", "::1", *hosts)]
        file.write_bytes(pki.issue(pki.Authority(ca, ca_key), service, key, [uri, *others]))

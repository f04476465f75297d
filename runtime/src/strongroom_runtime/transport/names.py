"""What services are called in their certificates.

The identity of a service is the URI SAN `spiffe://<trust-domain>/service/<name>` (SPIFFE-ID specification,
section 2): by it a server knows its callers. A caller knows a server by the ordinary check of its name in TLS,
which reads DNS names alone; so there is `<name>.<trust-domain>` beside it, and `member.<trust-domain>` for what
every service answers. See `docs/decisions/0028-callers-check-whom-they-reach.md`.
"""

import ipaddress
import re

from cryptography import x509

# What any service answers, whichever it is: confirmations between the members of the cluster.
MEMBER = "member"
# Have certificates of the CA where it makes those of etcd too, and answer no calls of the platform.
_OUTSIDERS = ("etcd", "client")

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SERVICE = re.compile(_LABEL)
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def identity_of(service: str, trust_domain: str) -> str:
    """Returns the URI that a certificate of a service has; the beginning of all for an empty service."""
    return f"spiffe://{trust_domain}/service/{service}"


def server_name(service: str, trust_domain: str) -> str:
    """Returns the DNS name by which callers know a service, or any member."""
    return f"{service}.{trust_domain}"


def of_service(service: str, trust_domain: str) -> list[x509.GeneralName]:
    """Returns what the certificate of a service says of it."""
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity_of(service, trust_domain))
    ]
    if service not in _OUTSIDERS:
        names += [x509.DNSName(server_name(each, trust_domain)) for each in (service, MEMBER)]
    return names


def of_host(host: str) -> x509.GeneralName:
    """Returns a host name or an address as it stands in a certificate."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def in_certificate(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Returns the names of a certificate."""
    try:
        return list(
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        return []


def shown(name: x509.GeneralName) -> str:
    """Returns a name as people read it."""
    return str(name.value)


def is_within(name: x509.GeneralName, trust_domain: str) -> bool:
    """Returns whether callers could take a name for that of a service, of today or to come."""
    if not isinstance(name, x509.DNSName):
        return False
    host = name.value.lower()
    return host == trust_domain or host.endswith(f".{trust_domain}")


def check_domain(trust_domain: str) -> None:
    """Refuses what cannot be a trust domain.

    Raises:
        ValueError: names it, and what it takes.
    """
    if not _DOMAIN.fullmatch(trust_domain):
        raise ValueError(
            f"trust domain {trust_domain!r}: takes a name of lower-case letters, such as strongroom.internal"
        )


def check_service(service: str) -> None:
    """Refuses what cannot be a service.

    Raises:
        ValueError: names it, and what it takes.
    """
    if not _SERVICE.fullmatch(service) or service == MEMBER:
        raise ValueError(f"service {service!r}: takes the name of a service, such as transit")


def check_host(host: str, trust_domain: str) -> None:
    """Refuses a host name that callers could take for the name of a service.

    Raises:
        ValueError: names it, and what it takes.
    """
    name = of_host(host)
    if isinstance(name, x509.DNSName) and not _HOST.fullmatch(host.lower()):
        raise ValueError(f"host {host!r}: takes a host name or an address")
    if is_within(name, trust_domain):
        raise ValueError(
            f"host {host!r}: lies inside the trust domain {trust_domain}, where names are those of services;"
            " give hosts other names, or the trust domain another"
        )

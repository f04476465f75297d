"""Addresses of clients, and ranges of them.

An IPv4 address may come as an IPv6 one (RFC 4291, section 2.5.5.2), as to a server that listens for both; it is the
same address, in ranges too.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_MAPPED_BITS = 96


def parse_address(text: str) -> Address:
    """Returns an address.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def parse_range(text: str) -> Range:
    """Returns an address range; bits behind its prefix mean nothing, and an address stands for itself.

    Raises:
        ValueError: it is none.
    """
    found = ipaddress.ip_network(text, strict=False)
    if not (isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED)):  # type: ignore[arg-type]
        return found
    first = int(found.network_address) & 0xFFFF_FFFF
    return ipaddress.IPv4Network((first, found.prefixlen - _MAPPED_BITS))

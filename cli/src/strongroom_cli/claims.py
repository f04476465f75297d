"""What a platform must have for itself on this machine: its folder, and the addresses that clients use."""

import fcntl
import os
import socket
from pathlib import Path


def claim_folder(folder: Path) -> int:
    """Returns the descriptor of a file in the folder that is locked for as long as it is open.

    Raises:
        RuntimeError: another platform runs on the folder.
    """
    descriptor = os.open(folder / "running", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RuntimeError(f"another platform runs on {folder}") from None
    return descriptor


def check_address(setting: str, address: str) -> None:
    """Raises where something listens on an address already.

    Servers of one platform may share a port, so that the system would let another platform share it as well, and give
    each of both some of the clients.

    Raises:
        RuntimeError: it is in use, or not an address of this machine.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, kind, protocol, _, where in found[:1]:
            with socket.socket(family, kind, protocol) as probe:
                # What the last connections of an ended process left behind is in nobody's way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
    except OSError as error:
        raise RuntimeError(f"{setting}: cannot listen on {address}: {error.strerror}") from None

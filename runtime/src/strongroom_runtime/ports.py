"""Ports on loopback."""

import random
import socket

# Below what systems take for the near end of connections (Linux from 32768, others from 49152): no connection can sit
# on such a port when a server is to be started on it, now or after a restart.
_FIRST, _BEHIND = 15_000, 32_000
_ATTEMPTS = 100


def free_port() -> int:
    """Returns a port that nobody listens on now.

    Raises:
        OSError: there is none.
    """
    wanted = [random.randrange(_FIRST, _BEHIND) for _ in range(_ATTEMPTS)]  # noqa: S311
    for port in (*wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port of loopback is free")

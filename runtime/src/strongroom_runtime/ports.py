"""Ports on loopback, the address of this machine, and how many connections a process may have."""

import asyncio
import contextlib
import random
import resource
import socket
import time
from collections import deque
from collections.abc import Iterable

# What endpoints begin with that are sockets of this machine; their path is behind it.
SOCKET = "unix:"

_RESERVED_SECONDS = 60.0


def allow_connections() -> None:
    """Lets this process have as many files open, and so connections, as it may. Systems begin with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Ports:
    """Gives ports of a range that nobody listens on, each once before any comes again.

    What is given is not given by other processes for a minute: until then whoever wants to listen on it does.

    Args:
        first: the lowest.
        behind: the one behind the highest.
    """

    def __init__(self, first: int, behind: int) -> None:
        self._first = first
        self._size = behind - first
        self._next = random.randrange(self._size)  # noqa: S311
        self._reserved: deque[tuple[float, int, socket.socket]] = deque()
        self._kept: dict[int, socket.socket] = {}

    def free(self) -> int:
        """Returns a port.

        Raises:
            OSError: there is none.
        """
        while self._reserved and self._reserved[0][0] < time.monotonic():
            _, given, reservation = self._reserved.popleft()
            if self._kept.get(given) is not reservation:
                reservation.close()
        for _ in range(self._size):
            port = self._first + self._next
            self._next = (self._next + 1) % self._size
            made = _reserve(port)
            if made is None:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    made.close()
                    continue
            self._reserved.append((time.monotonic() + _RESERVED_SECONDS, port, made))
            return port
        raise OSError("no port of loopback is free")

    def keep(self, port: int) -> None:
        """Lets nobody else be given a port while this process lives, for whoever may start a server on it again.

        Nothing happens where another process has reserved it.
        """
        own = next((each for _, given, each in self._reserved if given == port), None)
        reservation = self._kept.get(port) or own or _reserve(port)
        if reservation is not None:
            self._kept[port] = reservation


def _reserve(port: int) -> socket.socket | None:
    """Returns what reserves a port while it is open; None where another has."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # A name without a file (Linux, unix(7)), which goes with the socket or the process; where there is no such
        # thing nothing is reserved.
        with contextlib.suppress(FileNotFoundError):
            reservation.bind(f"\0strongroom-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation


# Below what systems take for the near end of connections (Linux from 32768, others from 49152): no connection can sit
# on such a port when a server is to be started on it, now or after a restart.
_ports = Ports(15_000, 32_000)
free_port, keep_port = _ports.free, _ports.keep


async def address_towards(endpoints: Iterable[str]) -> str:
    """Returns the address of this machine from which it reaches the first endpoint that it can reach. Sends nothing.

    Raises:
        OSError: it can reach none.
    """
    loop = asyncio.get_running_loop()
    for endpoint in endpoints:
        if endpoint.startswith(SOCKET):
            return "127.0.0.1"
        host, _, port = endpoint.rpartition(":")
        try:
            found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
            with socket.socket(found[0][0], socket.SOCK_DGRAM) as probe:
                probe.connect(found[0][4])  # of a datagram: this asks for a route alone
                return str(probe.getsockname()[0])
        except OSError:
            continue
    raise OSError("the address of this machine cannot be told from the way to etcd; give advertise")


def split_hostport(address: str) -> tuple[str, int]:
    """Returns host and port of HOST:PORT, an IPv6 address without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def hostport(host: str, port: int) -> str:
    """Returns HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

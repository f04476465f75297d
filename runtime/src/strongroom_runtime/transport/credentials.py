"""Credentials, channels and servers for mutual TLS on grpc.aio."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from strongroom_runtime.transport.names import server_name

# Without ping_timeout grpc keeps a hung peer for a minute, whatever keepalive_timeout says.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The files that say who a process is: a CA, a certificate of it, its key."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, service: str) -> "Identity":
        """Returns the identity of a service in a folder that `pki.initialise` filled."""
        return cls(folder / "ca.pem", folder / f"{service}.pem", folder / f"{service}.key")

    def pair(self) -> tuple[bytes, bytes]:
        """Returns the key and the certificate, as gRPC takes them."""
        return self.key.read_bytes(), self.certificate.read_bytes()

    def server_context(self) -> ssl.SSLContext:
        """Returns what shows this certificate and asks clients for one of the CA, for asyncio."""
        return self._trusting(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def client_context(self) -> ssl.SSLContext:
        """Returns what shows this certificate, trusts the CA alone and checks the server's name, for asyncio."""
        return self._trusting(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _trusting(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Identities:
    """The certificates of a process: one for each of its services.

    Args:
        folder: where they are.
        trust_domain: the platform that they are of; peers outside it are refused.
        services: the first one is shown to whoever asks for none of them.
    """

    folder: Path
    trust_domain: str
    services: Sequence[str]

    def of(self, service: str) -> Identity:
        """Returns the identity of one service."""
        return Identity.of(self.folder, service)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that ask every client for a certificate of the CA.

        gRPC shows the first certificate that has the name by which the client calls.
        """
        first = self.of(self.services[0])
        return grpc.ssl_server_credentials(
            [self.of(service).pair() for service in self.services],
            root_certificates=first.ca.read_bytes(),
            require_client_auth=True,
        )

    def server_context(self) -> ssl.SSLContext:
        """Returns the same for asyncio."""
        contexts = {
            server_name(service, self.trust_domain): self.of(service).server_context()
            for service in self.services
        }
        first = next(iter(contexts.values()))

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = contexts.get(name or "", first)

        first.sni_callback = choose
        return first

    def connector(self, caller: str, called: str) -> "Connector":
        """Returns what opens channels with mutual TLS, to one service alone.

        Args:
            caller: the service of this process that calls.
            called: the service that has to answer, or `names.MEMBER` for any.
        """
        return Connector(self.of(caller), server_name(called, self.trust_domain))


class Connector:
    """Opens channels with mutual TLS to those who have a certificate for a name, wherever they are.

    Has what it takes to connect without gRPC, too.

    Args:
        identity: shown to the other side, which has to have a certificate of the same CA.
        name: which that certificate must have. The address it is reached by need not be in it.
    """

    def __init__(self, identity: Identity, name: str) -> None:
        key, certificate = identity.pair()
        self._credentials = grpc.ssl_channel_credentials(identity.ca.read_bytes(), key, certificate)
        self._options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name))
        self.context = identity.client_context()
        self.name = name

    def __call__(self, address: str) -> grpc.aio.Channel:
        """Returns a channel to host:port."""
        return grpc.aio.secure_channel(address, self._credentials, options=self._options)

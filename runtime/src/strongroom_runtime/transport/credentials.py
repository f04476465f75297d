"""Credentials, channels and servers for mutual TLS on grpc.aio."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

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
    """The files that say who a process is: the internal CA, its certificate, its key."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, service: str) -> "Identity":
        """Returns the identity of a service in a folder that `pki.initialise` filled."""
        return cls(folder / "ca.pem", folder / f"{service}.pem", folder / f"{service}.key")

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that ask every client for a certificate of the CA."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.ca.read_bytes(),
            require_client_auth=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Returns credentials that show this certificate and trust the CA alone."""
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )

    def server_context(self) -> ssl.SSLContext:
        """Returns the same for asyncio."""
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

    def connector(self) -> "Connector":
        """Returns what opens channels with mutual TLS to host:port."""
        return Connector(self)


class Connector:
    """Opens channels with mutual TLS, and has what it takes to connect without gRPC.

    Args:
        identity: shown to the other side; it has to have a certificate of the same CA.
    """

    def __init__(self, identity: Identity) -> None:
        self._credentials = identity.channel_credentials()
        self.context = identity.client_context()

    def __call__(self, address: str) -> grpc.aio.Channel:
        """Returns a channel to host:port."""
        return grpc.aio.secure_channel(address, self._credentials, options=CHANNEL_OPTIONS)

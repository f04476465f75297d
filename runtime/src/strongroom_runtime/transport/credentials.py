"""Credentials, channels and servers for mutual TLS on grpc.aio."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity, Renewable, Texts
from strongroom_runtime.transport.names import server_name

# Proxies of the environment are for the world outside (grpc.enable_http_proxy): processes reach each other without.
DIRECTLY = (("grpc.enable_http_proxy", 0),)
# Without ping_timeout grpc keeps a hung peer for a minute, whatever keepalive_timeout says.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *DIRECTLY,
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


class Identities:
    """The certificates of a process: one for each of its services.

    Args:
        folder: where they are.
        trust_domain: the platform that they are of; peers outside it are refused.
        services: the first one is shown to whoever asks for none of them.
    """

    def __init__(self, folder: Path, trust_domain: str, services: Sequence[str]) -> None:
        self.folder = folder
        self.trust_domain = trust_domain
        self.services = services
        self._renewables: dict[str, Renewable] = {}

    def of(self, service: str) -> Renewable:
        """Returns the identity of one service.

        Raises:
            OSError: its files cannot be read, or do not fit each other.
        """
        if service not in self._renewables:
            self._renewables[service] = Renewable(
                Identity.of(self.folder, service),
                lambda found: pki.check_names(found, service, self.trust_domain),
            )
        return self._renewables[service]

    def look(self) -> None:
        """Takes certificates that were renewed."""
        for renewable in self._renewables.values():
            renewable.look()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that ask every client for a certificate of the CA.

        gRPC shows the first certificate that has the name by which the client calls.
        """
        return server_credentials([self.of(service) for service in self.services])

    def server_context(self) -> ssl.SSLContext:
        """Returns the same for asyncio."""
        first = self.of(self.services[0])
        named = {
            server_name(service, self.trust_domain): self.of(service) for service in self.services
        }

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            # With its certificate, a connection takes the context's CA as well.
            connection.context = named.get(name or "", first).current.server

        # A context of its own to begin with: this one stays the listener's for good.
        context = Renewable(first.identity).current.server
        context.sni_callback = choose
        return context

    def connector(self, caller: str, called: str) -> "Connector":
        """Returns what opens channels with mutual TLS, to one service alone.

        Args:
            caller: the service of this process that calls.
            called: the service that has to answer, or `names.MEMBER` for any.
        """
        return Connector(self.of(caller), server_name(called, self.trust_domain))


def server_credentials(shown: Sequence[Renewable]) -> grpc.ServerCredentials:
    """Returns credentials of a server that shows each client the certificates as they are when it connects.

    Args:
        shown: the first one to whoever asks for none of them. Where it has a CA, clients are asked for a certificate.
    """
    given: list[Texts] = []

    def configuration(texts: Sequence[Texts]) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [each.pair for each in texts], root_certificates=texts[0].ca
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, in a thread of its own, with each connection; None for as before."""
        texts = [renewable.current.texts for renewable in shown]
        if texts == given:
            return None
        given[:] = texts
        return configuration(texts)

    given[:] = [renewable.current.texts for renewable in shown]
    fetching: Any = fetch  # whose None the stub forgets
    return grpc.dynamic_ssl_server_credentials(
        configuration(given), fetching, require_client_authentication=given[0].ca is not None
    )


class Connector:
    """Opens channels with mutual TLS to those who have a certificate for a name, wherever they are.

    Has what it takes to connect without gRPC, too.

    Args:
        identity: shown to the other side, which has to have a certificate of the same CA.
        name: which that certificate must have. The address it is reached by need not be in it.
    """

    def __init__(self, identity: Renewable, name: str) -> None:
        self._identity = identity
        self._options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name))
        self.name = name

    @property
    def texts(self) -> Texts:
        """What is shown, which changes when it is renewed. A channel shows for good what it was opened with."""
        return self._identity.current.texts

    @property
    def context(self) -> ssl.SSLContext:
        """Shows the certificate, trusts the CA alone and checks the server's name, for asyncio."""
        return self._identity.current.client

    def __call__(self, address: str) -> grpc.aio.Channel:
        """Returns a channel to host:port."""
        key, certificate = self.texts.pair
        credentials = grpc.ssl_channel_credentials(self.texts.ca, key, certificate)
        return grpc.aio.secure_channel(address, credentials, options=self._options)

"""What clients connect to: HTTP, and gRPC with reflection and health."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from strongroom_cli.settings import ServerConfig
from strongroom_gateway.contract.bodies import MAX_BODY
from strongroom_gateway.gateway import Gateway
from strongroom_gateway.grpc_in_time import InTime
from strongroom_gateway.health import SERVICE_NAME, GrpcHealth
from strongroom_gateway.http.server import HttpServer
from strongroom_runtime.ports import allow_connections
from strongroom_runtime.transport.certificates import Identity, Renewable, Texts
from strongroom_runtime.transport.credentials import SERVER_OPTIONS, server_credentials
from strongroom_runtime.transport.leaving import Patience

log = logging.getLogger(__name__)

# Anybody may call, with a token or without: messages are no larger than bodies over HTTP, are not made larger by
# decompression, and a connection has no more of them at a time than one that works hard needs. One without calls is
# ended after five minutes, and one whose client is gone is noticed within two.
_OPTIONS = {
    **dict(SERVER_OPTIONS),
    "grpc.max_receive_message_length": MAX_BODY,
    "grpc.compression_enabled_algorithms_bitset": 1,  # identity
    "grpc.max_concurrent_streams": 250,
    "grpc.max_connection_idle_ms": 300_000,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.ping_timeout_ms": 20_000,
}
_CALLS_SECONDS = 5.0  # for gRPC calls that are under way in the end


class _Descriptors:
    """The pool of descriptors, in which methods are found as well: `grpcurl describe` asks where one is."""

    _pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name
        """Returns the file of a service, message, enum, extension or method.

        Raises:
            KeyError: there is none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class PublicServers:
    """Both wires of a gateway.

    Args:
        config: where they listen, and with which certificate.
        gateway: answers.
        patience: with streams that are open in the end.
        reached: whether a service, by its name, takes calls from here.
    """

    def __init__(
        self,
        config: ServerConfig,
        gateway: Gateway,
        patience: Patience,
        reached: Callable[[str], bool],
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._patience = patience
        self._reached = reached
        self._certificate = _certificate(config)
        self._http_shows: Texts | None = None
        self._http: HttpServer | None = None
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens, and returns once connections are taken.

        Raises:
            OSError: an address cannot be listened on.
        """
        allow_connections()
        config, certificate = self._config, self._certificate
        self._http_shows = certificate.current.texts if certificate else None
        host, _, port = config.listen.rpartition(":")
        self._http = HttpServer(
            self._gateway.http,
            host.strip("[]"),
            int(port),
            (certificate.identity.certificate, certificate.identity.key) if certificate else None,
        )
        await self._http.start()
        options = {**_OPTIONS, "grpc.so_reuseport": 1 if config.workers > 1 else 0}
        self._grpc = grpc.aio.server(options=list(options.items()))
        methods = self._gateway.routes.methods
        calls, open_to_all = InTime(streams=False), InTime(streams=True)
        calls.add_generic_rpc_handlers([self._gateway.grpc])
        health = GrpcHealth(methods.values(), self._reached)
        health_pb2_grpc.add_HealthServicer_to_server(health, open_to_all)
        names = sorted({name.split("/")[1] for name in methods})
        reflected = reflection.aio.ReflectionServicer(
            [*names, SERVICE_NAME, reflection.SERVICE_NAME], _Descriptors()
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, open_to_all)
        self._grpc.add_generic_rpc_handlers([calls, open_to_all])
        try:
            if certificate is None:
                self._grpc.add_insecure_port(config.grpc_listen)
            else:
                self._grpc.add_secure_port(config.grpc_listen, server_credentials([certificate]))
        except RuntimeError:
            raise OSError(f"cannot listen on {config.grpc_listen}") from None
        await self._grpc.start()
        await _accepting(host.strip("[]"), int(port))
        log.info("listening", extra={"http": config.listen, "grpc": config.grpc_listen})

    async def look(self) -> None:
        """Shows a certificate that was renewed to connections to come."""
        if self._certificate is None or self._http is None:
            return
        self._certificate.look()
        texts = self._certificate.current.texts
        if texts == self._http_shows:
            return
        try:
            await self._http.renew(texts.certificate, texts.key)
            self._http_shows = texts
        except OSError as error:
            log.error(
                "HTTP goes on with the certificate before",
                extra={"file": str(self._certificate.identity.certificate), "reason": str(error)},
            )

    async def stop_http(self) -> None:
        """Takes no more HTTP, and answers what there is."""
        if self._http is not None:
            await self._http.stop()

    async def stop_grpc(self) -> None:
        """Takes no more gRPC, and answers what there is."""
        if self._grpc is None:
            return
        stopping = asyncio.create_task(self._grpc.stop(self._patience.seconds + _CALLS_SECONDS))
        await self._gateway.grpc.drain(self._patience)
        await self._grpc.stop(_CALLS_SECONDS)
        await stopping


def _certificate(config: ServerConfig) -> Renewable | None:
    """Returns what clients see; None for plain text."""
    if not config.tls:
        return None
    own = Identity.of(config.certificates, "gateway")
    certificate, key = own.certificate, own.key
    if config.tls_cert is not None and config.tls_key is not None:
        certificate, key = config.tls_cert, config.tls_key
    return Renewable(Identity(None, certificate, key))


async def _accepting(host: str, port: int) -> None:
    """Returns once a port takes connections."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    raise OSError(f"cannot listen on {host}:{port}")

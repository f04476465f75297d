"""A thin client for etcd's v3 API on grpc.aio.

All endpoints are used, with failover by grpc's round robin. Reads are retried while a leader is being elected;
transactions never are, since one that failed without an answer may have been committed.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from strongroom.etcd.v3 import etcd_pb2, etcd_pb2_grpc
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.transport.credentials import CHANNEL_OPTIONS, Identity

T = TypeVar("T")

# How grpc.aio reports a stream that broke: as such, or, to a write that comes too late, as a misuse.
STREAM_BROKE = (grpc.aio.AioRpcError, asyncio.InvalidStateError)

_READ_ATTEMPTS = 5
_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """How to reach a cluster.

    Args:
        endpoints: host:port of every member.
        identity: certificate files for mutual TLS; None for plain text on loopback.
        authority: a name in the members' certificates.
        timeout_seconds: the bound on one call.
    """

    endpoints: tuple[str, ...]
    identity: Identity | None = None
    authority: str = "localhost"
    timeout_seconds: float = 5.0


class EtcdClient:
    """One channel over all members of a cluster."""

    def __init__(self, config: EtcdConfig) -> None:
        self._timeout = config.timeout_seconds
        self.channel = _channel(config)
        self._kv = etcd_pb2_grpc.KVStub(self.channel)
        self._lease = etcd_pb2_grpc.LeaseStub(self.channel)
        self._maintenance = etcd_pb2_grpc.MaintenanceStub(self.channel)

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> etcd_pb2.RangeResponse:
        """Reads a key, or the keys from `key` to before `end`, linearizably (or as of a revision).

        Raises:
            ServiceError: UNAVAILABLE.
        """
        request = etcd_pb2.RangeRequest(
            key=key,
            range_end=end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
        )
        return await self._read(lambda: self._kv.Range(request, timeout=self._timeout))

    async def transaction(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        """Runs a transaction, once.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        try:
            return await self._kv.Txn(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error) from error

    async def compact(self, revision: int) -> None:
        """Forgets what came before a revision."""
        request = etcd_pb2.CompactionRequest(revision=revision, physical=True)
        await self._read(lambda: self._kv.Compact(request, timeout=self._timeout))

    async def grant(self, ttl_seconds: int) -> etcd_pb2.LeaseGrantResponse:
        """Makes a lease."""
        request = etcd_pb2.LeaseGrantRequest(TTL=ttl_seconds)
        return await self._read(lambda: self._lease.LeaseGrant(request, timeout=self._timeout))

    async def revoke(self, lease: int) -> None:
        """Ends a lease; one that is gone already is no error."""
        request = etcd_pb2.LeaseRevokeRequest(ID=lease)
        try:
            await self._lease.LeaseRevoke(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise _unavailable(error) from error

    async def status(self) -> etcd_pb2.StatusResponse:
        """Asks one member for its version and size."""
        request = etcd_pb2.StatusRequest()
        return await self._read(lambda: self._maintenance.Status(request, timeout=self._timeout))

    async def close(self) -> None:
        """Closes the channel."""
        await self.channel.close()

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        """Runs what may be repeated, until it answers or the attempts are used up."""
        for attempt in range(_READ_ATTEMPTS):
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                last = attempt == _READ_ATTEMPTS - 1
                if last or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise _unavailable(error) from error
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError("unreachable")


def prefix_end(prefix: bytes) -> bytes:
    """Returns the first key behind all keys with a prefix (etcd's range_end)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"


def _channel(config: EtcdConfig) -> grpc.aio.Channel:
    target = _target(config.endpoints)
    options = [*CHANNEL_OPTIONS, ("grpc.lb_policy_name", "round_robin")]
    if config.identity is None:
        return grpc.aio.insecure_channel(target, options=options)
    # Without it grpc checks the members' certificates against the list of addresses.
    options.append(("grpc.default_authority", config.authority))
    return grpc.aio.secure_channel(target, config.identity.channel_credentials(), options=options)


def _target(endpoints: Sequence[str]) -> str:
    """Returns grpc's name for a list of endpoints.

    Raises:
        ValueError: several endpoints that are not all IP addresses of one family.
    """
    hosts = [endpoint.rpartition(":")[0].strip("[]") for endpoint in endpoints]
    try:
        families = {ipaddress.ip_address(host).version for host in hosts}
    except ValueError:
        families = set()
    if len(families) == 1:
        return f"ipv{families.pop()}:{','.join(endpoints)}"
    if len(endpoints) == 1:
        return f"dns:///{endpoints[0]}"
    raise ValueError(
        "etcd endpoints must be one host name, or IP addresses of one family: "
        "give the name that resolves to all members, or their addresses"
    )


def _unavailable(error: grpc.aio.AioRpcError) -> ServiceError:
    return ServiceError(Kind.UNAVAILABLE, f"etcd did not answer ({error.code().name})")

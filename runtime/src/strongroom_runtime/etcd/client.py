"""A thin client for etcd's v3 API.

All endpoints are used in turn, as far as they can be reached. Reads are retried while a leader is being elected;
transactions never are, since one that failed without an answer may have been committed. Only where etcd says that
it began nothing, because the member has no leader or because of the user's token, a call is made again.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc

from strongroom.etcd.v3 import etcd_pb2, etcd_pb2_grpc
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.http2 import Channel, Stream, UntrustedError
from strongroom_runtime.etcd.lineage import Lineage
from strongroom_runtime.etcd.refusal import RefusedError
from strongroom_runtime.etcd.releases import answers_before_logging
from strongroom_runtime.etcd.session import Login, Metadata, Session
from strongroom_runtime.transport.certificates import Identity, Renewable

T = TypeVar("T")

log = logging.getLogger(__name__)

# How etcd says that its quota is reached, and its alarm NOSPACE set.
_FULL = "database space exceeded"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
# The headers of their answers are as new as what was committed when they were sent.
_LINEARIZABLE = (etcd_pb2.RangeRequest, etcd_pb2.TxnRequest)
# Asks a member to refuse what it cannot do for want of a leader, since it is cut off from the others, say; and to end
# streams once it has had none for a while. Without it a watch there stays open and is silent.
_LED: Metadata = (("hasleader", "true"),)
_NO_LEADER = "etcdserver: no leader"
_NOBODY = "etcdserver: user name is empty"
_READ_ATTEMPTS = 5
_READABLE = b"cluster/"  # what every user may read
_TOKEN_ATTEMPTS = 3
_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """How to reach a cluster.

    Args:
        endpoints: host:port of every member; with TLS, the host stands in its certificate.
        identity: certificate files for mutual TLS; None for plain text on loopback.
        login: a user of etcd; None where it has no access control.
        timeout_seconds: the bound on one call.
    """

    endpoints: tuple[str, ...]
    identity: Identity | None = None
    login: Login | None = None
    timeout_seconds: float = 5.0


class _NotAllowedError(RefusedError):
    """What was asked of etcd is not for the user of the process."""


class EtcdClient:
    """One for each process that talks to a cluster.

    Args:
        config: how to reach it.
        lineage: notices that it was restored or replaced; None for who keeps nothing of what etcd says.

    Attributes:
        answers_early: what a transaction was answered with may not be in etcd's log yet.
    """

    def __init__(self, config: EtcdConfig, lineage: Lineage | None = None) -> None:
        self.lineage = lineage
        self._timeout = config.timeout_seconds
        self._identity = Renewable(config.identity) if config.identity is not None else None
        identity = self._identity
        self._channel = Channel(
            config.endpoints, partial(_context, identity) if identity is not None else None
        )
        # Any: the stubs' types name grpc.aio's channel, and use no more of it than ours has.
        channel: Any = self._channel
        self._kv = etcd_pb2_grpc.KVStub(channel)
        self._watch: Any = etcd_pb2_grpc.WatchStub(channel)
        self._lease: Any = etcd_pb2_grpc.LeaseStub(channel)
        self._maintenance = etcd_pb2_grpc.MaintenanceStub(channel)
        self._auth = etcd_pb2_grpc.AuthStub(channel)
        self._session = Session(config.login, self._authenticate) if config.login else None
        self._knows_release = False  # until the first transaction
        self._full = False
        self.answers_early = False

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
        return await self._read(self._kv.Range, request)

    async def gets(self, keys: Sequence[bytes]) -> list[etcd_pb2.KeyValue | None]:
        """Reads many keys at one revision, linearizably.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        request = etcd_pb2.TxnRequest()
        for key in keys:
            request.success.add().request_range.key = key
        response = await self._read(self._kv.Txn, request)
        ranges = [each.response_range.kvs for each in response.responses]
        return [kvs[0] if kvs else None for kvs in ranges]

    async def transaction(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        """Runs a transaction, once. When it returns, a crash of etcd takes nothing of it back.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        response = await self.answer(request)
        if self.answers_early:
            await self.logged(response)
        return response

    async def answer(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        """Runs a transaction, once, and returns what etcd answers; where it `answers_early`, `logged` has to follow.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        if not self._knows_release:
            self.answers_early = await self._answers_before_logging()
            self._knows_release = True
        try:
            response = await self._call(self._kv.Txn, request)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        if self._full:
            self._full = False
            log.info("etcd takes changes again")
        return response

    async def _answers_before_logging(self) -> bool:
        """Asks etcd for its release. Those that tell it to root alone (from 3.4.42, 3.5.28 and 3.6.9) log first."""
        try:
            return answers_before_logging((await self.status()).version)
        except _NotAllowedError:
            return False

    async def logged(self, response: etcd_pb2.TxnResponse) -> None:
        """Returns once what was answered is in etcd's log; see `docs/decisions/0039-answers-before-the-log.md`.

        A linearizable read that is asked for after the answer is itself answered only after that.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        read = await self.range(_READABLE, keys_only=True)
        if read.header.raft_term != response.header.raft_term:
            # It may have been killed before it wrote, and started again.
            raise ServiceError(Kind.UNAVAILABLE, "etcd was started again during a transaction")

    async def compact(self, revision: int) -> None:
        """Forgets what came before a revision, and returns once it is gone; what is forgotten already is no error.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        request = etcd_pb2.CompactionRequest(revision=revision, physical=True)
        try:
            await self._call(self._kv.Compact, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise self._unavailable(error) from error

    async def defragment(self) -> None:
        """Gives back to the file system what is free in the file of a member, which does nothing else meanwhile.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        await self._read(self._maintenance.Defragment, etcd_pb2.DefragmentRequest())

    async def disarm(self) -> None:
        """Ends the alarms that the quota is reached, of all members.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        raised = etcd_pb2.AlarmRequest(alarm=etcd_pb2.NOSPACE)
        for each in (await self._read(self._maintenance.Alarm, raised)).alarms:
            request = etcd_pb2.AlarmRequest(
                action=etcd_pb2.AlarmRequest.DEACTIVATE, member_id=each.member_id, alarm=each.alarm
            )
            await self._read(self._maintenance.Alarm, request)

    async def grant(self, ttl_seconds: int) -> etcd_pb2.LeaseGrantResponse:
        """Makes a lease."""
        request = etcd_pb2.LeaseGrantRequest(TTL=ttl_seconds)
        return await self._read(self._lease.LeaseGrant, request)

    async def revoke(self, lease: int) -> None:
        """Ends a lease; one that is gone already is no error."""
        request = etcd_pb2.LeaseRevokeRequest(ID=lease)
        try:
            await self._call(self._lease.LeaseRevoke, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise self._unavailable(error) from error

    async def status(self) -> etcd_pb2.StatusResponse:
        """Asks one member for its version, its size and what is wrong."""
        request = etcd_pb2.StatusRequest()
        return await self._read(self._maintenance.Status, request)

    async def administer(self, method: str, request: Any) -> Any:
        """Runs a method of etcd's service `Auth`, once.

        Raises:
            grpc.aio.AioRpcError: as etcd says it.
            ServiceError: UNAVAILABLE; the login was refused.
        """
        return await self._call(getattr(self._auth, method), request)

    async def accepts(self, user: str, password: str) -> bool:
        """Returns whether etcd takes a password; while it has access control turned off, it takes none.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        try:
            await self._authenticate(user, password)
        except grpc.aio.AioRpcError as error:
            if error.code() in (_INVALID, _PRECONDITION):
                return False
            raise self._unavailable(error) from error
        return True

    def watching(self) -> contextlib.AbstractAsyncContextManager[Stream]:
        """Opens a stream of watches, and ends it."""
        return self._stream(self._watch.Watch)

    def renewing(self) -> contextlib.AbstractAsyncContextManager[Stream]:
        """Opens a stream that keeps leases alive, and ends it."""
        return self._stream(self._lease.LeaseKeepAlive)

    def take(self, header: etcd_pb2.ResponseHeader) -> None:
        """Takes the header of what came in a stream.

        Raises:
            ServiceError: UNAVAILABLE where etcd was restored or replaced.
        """
        if self.lineage is not None:
            self.lineage.take(header)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    def look(self) -> None:
        """Takes the certificate if it was renewed, for connections to come."""
        if self._identity is not None:
            self._identity.look()

    async def _authenticate(self, user: str, password: str) -> str:
        request = etcd_pb2.AuthenticateRequest(name=user, password=password)
        answer = await self._auth.Authenticate(request, timeout=self._timeout, metadata=_LED)
        return answer.token

    async def _call(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        """Runs a call, and takes its answer if it is of the etcd that this process began with."""
        lineage = self.lineage
        if lineage is None:
            return await self._answer(method, request)
        at_least = lineage.begin()
        answer: Any = await self._answer(method, request)
        lineage.take(answer.header, at_least if isinstance(request, _LINEARIZABLE) else 0)
        return answer  # type: ignore[no-any-return]

    async def _answer(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        """Runs a call as the user, if there is one."""
        session = self._session
        if session is None:
            return await self._ask(method, request, ())
        for _ in range(_TOKEN_ATTEMPTS - 1):
            metadata = await session.metadata()
            try:
                return await self._ask(method, request, metadata)
            except grpc.aio.AioRpcError as error:
                if not session.refused(metadata, error.details()):
                    raise
        return await self._ask(method, request, await session.metadata())

    async def _ask(
        self, method: Callable[..., Awaitable[T]], request: Any, metadata: Metadata
    ) -> T:
        """Runs a call at a member that has a leader: one that has none begins nothing, and another is asked."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            remaining = deadline - loop.time()
            try:
                return await method(request, timeout=remaining, metadata=(*_LED, *metadata))
            except grpc.aio.AioRpcError as error:
                if error.details() != _NO_LEADER or remaining <= 2 * _RETRY_SECONDS:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    @contextlib.asynccontextmanager
    async def _stream(self, method: Callable[..., Stream]) -> AsyncIterator[Stream]:
        if self.lineage is not None:
            self.lineage.begin()
        metadata: Metadata = await self._session.metadata() if self._session else ()
        stream = method(metadata=(*_LED, *metadata))
        try:
            yield stream
        except grpc.aio.AioRpcError:
            if self._session and stream.done():
                self._session.refused(metadata, await stream.details())
            raise
        finally:
            stream.cancel()

    async def _read(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        """Runs what may be repeated, until it answers or the attempts are used up."""
        for attempt in range(_READ_ATTEMPTS):
            try:
                return await self._call(method, request)
            except grpc.aio.AioRpcError as error:
                # Where none has a leader, all the time of a call was spent on looking for one.
                last = attempt == _READ_ATTEMPTS - 1 or error.details() == _NO_LEADER
                if last or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise self._unavailable(error) from error
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError("unreachable")

    def _unavailable(self, error: grpc.aio.AioRpcError) -> ServiceError:
        if isinstance(error, UntrustedError):
            return RefusedError("identity", f"TLS with etcd fails: {error.details()}")
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            message = "etcd does not allow this to the user of the process"
            return _NotAllowedError("login", message)
        if error.details() == _NOBODY:
            return RefusedError("login", "etcd wants a user, and the process names none")
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return RefusedError("endpoints", "what answers is not etcd, or not of its version 3")
        if _FULL in (error.details() or ""):
            if not self._full:  # once, not with each change that is refused
                self._full = True
                log.error("etcd is full: compact it, defragment its members, then disarm its alarm")
            return ServiceError(Kind.UNAVAILABLE, "etcd is full and takes no changes")
        return ServiceError(Kind.UNAVAILABLE, f"etcd did not answer ({error.code().name})")


def prefix_end(prefix: bytes) -> bytes:
    """Returns the first key behind all keys with a prefix (etcd's range_end)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"


def _context(identity: Renewable) -> ssl.SSLContext:
    context = identity.current.client
    context.set_alpn_protocols(["h2"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # of releases of etcd that offer no more
    return context

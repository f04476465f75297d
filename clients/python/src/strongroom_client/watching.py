"""What changes, as it is committed: the watches of KvV2Service and LeaseService, across breaks.

A watch that breaks is begun again behind the last revision that was seen, so that nothing is missed and nothing
comes twice. Where nothing changes, the gateway says now and then how far it is: who keeps that can go on from there.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from strongroom.dbcreds.v1 import lease_pb2, lease_pb2_grpc
from strongroom.kv.v1 import kv2_pb2, kv2_pb2_grpc

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0


class Watches:
    """Watches that go on where they broke off.

    They yield what the gateway says: every message has a `revision`, up to which all was said; it may have no
    changes. Where one is refused, grpc.aio.AioRpcError is raised: FAILED_PRECONDITION where the revision to go on
    from is forgotten, upon which one lists, and watches from now.

    Args:
        channel: to the gateway.
        token: gives the token whenever a watch begins.
        patience_seconds: for how long watches that break are begun again without one message in between.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: Callable[[], str],
        *,
        patience_seconds: float = 60.0,
    ) -> None:
        self._secrets = kv2_pb2_grpc.KvV2ServiceStub(channel)
        self._leases = lease_pb2_grpc.LeaseServiceStub(channel)
        self._token = token
        self._patience = patience_seconds

    def secrets(
        self, path: str = "", *, mount: str = "secret", from_revision: int = 0
    ) -> AsyncIterator[kv2_pb2.WatchSecretsResponse]:
        """Yields what changes below a folder, from a revision or (0) from now on."""
        request = kv2_pb2.WatchSecretsRequest(mount=mount, path=path, from_revision=from_revision)
        return self._watch(self._secrets.WatchSecrets, request)

    def leases(
        self, prefix: str = "", *, from_revision: int = 0
    ) -> AsyncIterator[lease_pb2.WatchLeasesResponse]:
        """Yields what happens to leases below a prefix, from a revision or (0) from now on."""
        request = lease_pb2.WatchLeasesRequest(prefix=prefix, from_revision=from_revision)
        return self._watch(self._leases.WatchLeases, request)

    async def _watch(self, method: Any, request: Any) -> AsyncIterator[Any]:
        last: int | None = None
        broken_since, wait = 0.0, _FIRST_WAIT
        while True:
            call = method(request, metadata=(("authorization", f"Bearer {self._token()}"),))
            try:
                async for message in call:
                    broken_since, wait = 0.0, _FIRST_WAIT
                    # One that is begun again says first where it begins, which is known.
                    if last is None or message.revision > last:
                        last = message.revision
                        request.from_revision = last + 1
                        yield message
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                broken_since = broken_since or time.monotonic()
                if time.monotonic() - broken_since >= self._patience:
                    raise
            finally:
                call.cancel()
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

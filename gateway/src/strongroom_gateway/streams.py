"""Server streams: admitted like any request, and again before each message and every few seconds between them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from strongroom.kv.v1 import kv2_pb2
from strongroom_runtime.policy import Acl

_SECONDS = 5.0

Admit = Callable[[], Awaitable[Acl]]
# (acl, path of the mount, message): returns what may be shown of it.
Show = Callable[[Acl, str, Any], Any]


async def admitted(
    messages: AsyncGenerator[Any], admit: Admit, show: Callable[[Acl, Any], Any]
) -> AsyncGenerator[Any]:
    """Yields messages for as long as the caller is admitted.

    Args:
        messages: as the service sends them.
        admit: returns the caller's policies as they are now; raises once the stream is to end.
        show: leaves out of a message what they do not allow.
    """
    pending: asyncio.Task[Any] | None = None
    try:
        while True:
            if pending is None:
                pending = asyncio.ensure_future(anext(messages, None))
            await asyncio.wait({pending}, timeout=_SECONDS)
            acl = await admit()
            if not pending.done():
                continue
            message, pending = pending.result(), None
            if message is None:
                return
            yield show(acl, message)
    finally:
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await pending
        await messages.aclose()


def _secret_changes(
    acl: Acl, mount: str, response: kv2_pb2.WatchSecretsResponse
) -> kv2_pb2.WatchSecretsResponse:
    """Leaves out secrets of which the caller may read neither data nor metadata."""
    shown = [
        change
        for change in response.changes
        if any(_reads(acl, f"{mount}{part}/{change.path}") for part in ("data", "metadata"))
    ]
    return kv2_pb2.WatchSecretsResponse(changes=shown, revision=response.revision)


def _reads(acl: Acl, path: str) -> bool:
    return acl.decide(path, "read", parameters=dict, wrap_ttl=None).allowed


# Every stream says what it shows to whom: one that is not here is not served.
SHOW: dict[str, Show] = {"/strongroom.kv.v1.KvV2Service/WatchSecrets": _secret_changes}

"""A watch that resumes: no gap and no repetition, whatever happens to the connection or the member."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import grpc

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, prefix_end
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.storage import CompactedError

_RECONNECT_SECONDS = 0.1


class Seen(NamedTuple):
    """All changes up to a revision were seen, with these of that revision itself; there may be none."""

    revision: int
    events: list[etcd_pb2.Event]


async def watch(client: EtcdClient, prefix: bytes, from_revision: int) -> AsyncIterator[Seen]:
    """Yields the changes below a prefix from a revision on, all those of one revision together.

    After a break it resumes at the revision behind the last one yielded. A revision that came in part only is
    asked for again, so that it is never yielded twice or torn. Where nothing changes, it yields each minute or so
    how far it has come, so that it resumes from a revision that is not forgotten yet.

    Raises:
        CompactedError: the revision to start or resume from is gone.
    """
    following = from_revision
    work = Repeated("a watch", logging.WARNING)
    while True:
        try:
            async for seen in watch_once(client, prefix, following, work.goes_well, progress=True):
                # A member that is behind tells one that asks for its progress of revisions before that
                # from which it was to begin (etcd issue 20221).
                if seen.revision >= following:
                    yield seen
                    following = seen.revision + 1
        except grpc.aio.AioRpcError:
            pass
        except ServiceError as error:
            work.failed(error)
            # Some releases refuse a watch as not allowed when the token ran out: a read gets a new one.
            with contextlib.suppress(ServiceError):
                await client.range(prefix, limit=1)
        await asyncio.sleep(_RECONNECT_SECONDS)


async def watch_once(
    client: EtcdClient,
    prefix: bytes,
    start: int,
    begun: Callable[[], None] | None = None,
    progress: bool = False,
) -> AsyncIterator[Seen]:
    """Yields from one stream until it breaks, those of one revision together.

    Args:
        client: the cluster.
        prefix: what the keys begin with.
        start: the first revision.
        begun: called once the member has accepted the watch.
        progress: yields as well, now and then, up to which revision nothing has changed.

    Raises:
        CompactedError: the revision to start from is gone.
        ServiceError: UNAVAILABLE where etcd refuses the watch, or was restored or replaced.
        grpc.aio.AioRpcError: the stream broke.
    """
    create = etcd_pb2.WatchCreateRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        start_revision=start,
        progress_notify=progress,
        fragment=True,
    )
    async with client.watching() as stream:
        await stream.write(etcd_pb2.WatchRequest(create_request=create))
        held: list[etcd_pb2.Event] = []
        async for response in stream:
            client.take(response.header)
            if response.compact_revision:
                raise CompactedError
            if response.canceled:
                raise ServiceError(
                    Kind.UNAVAILABLE, f"etcd ended a watch: {response.cancel_reason}"
                )
            if response.created:
                if begun is not None:
                    begun()
                continue
            if not response.events and not held:
                # A notice of progress. It comes in order, behind all events up to its revision: etcd makes
                # it for a watch that has nothing left to catch up with, under the lock with which it adds events.
                yield Seen(response.header.revision, [])
            held += response.events
            # Fragments of one response follow each other; only the last has the flag unset.
            if not response.fragment:
                for seen in _by_revision(held):
                    yield seen
                held = []


def _by_revision(events: list[etcd_pb2.Event]) -> list[Seen]:
    if events and events[0].kv.mod_revision == events[-1].kv.mod_revision:
        # They come in the order of their revisions.
        return [Seen(events[0].kv.mod_revision, events)]
    groups: list[Seen] = []
    for event in events:
        if groups and groups[-1].revision == event.kv.mod_revision:
            groups[-1].events.append(event)
        else:
            groups.append(Seen(event.kv.mod_revision, [event]))
    return groups

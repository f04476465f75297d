"""Where services run: the members of the cluster say so in their records, which this follows.

A record is there for as long as its member's lease, so what died is gone with it; see `docs/decisions/0017`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.etcd.client import EtcdClient, prefix_end
from strongroom_runtime.etcd.members import MEMBERS, Member, read_member, shown
from strongroom_runtime.etcd.watch import watch
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.storage import CompactedError
from strongroom_runtime.tasks import end

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2

Use = Callable[[frozenset[str]], None]


class Directory:
    """Follows the records of all members. While etcd is away, what was known last stands.

    Args:
        client: the cluster's etcd.
    """

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._members: dict[bytes, Member] = {}
        self._known: dict[str, frozenset[str]] = {}
        self._uses: dict[str, list[Use]] = {}
        self._task: asyncio.Task[None] | None = None

    def addresses(self, service: str) -> frozenset[str]:
        """Returns host:port of every member that runs a service now."""
        return self._known.get(service, frozenset())

    def subscribe(self, service: str, use: Use) -> None:
        """Tells the addresses of a service at each change."""
        self._uses.setdefault(service, []).append(use)
        if self.addresses(service):
            use(self.addresses(service))

    def start(self) -> None:
        """Begins to follow."""
        self._task = asyncio.create_task(self._follow(), name="directory")

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            await end(self._task)

    async def _follow(self) -> None:
        work = Repeated("the following of members")
        while True:
            with work.turn(), contextlib.suppress(CompactedError):
                found = await self._client.range(MEMBERS, prefix_end(MEMBERS))
                self._members = {}
                for kv in found.kvs:
                    self._apply(kv)
                self._tell()
                work.goes_well()
                async for seen in watch(self._client, MEMBERS, found.header.revision + 1):
                    for event in seen.events:
                        self._apply(event.kv)
                    if seen.events:
                        self._tell()
            await asyncio.sleep(_RETRY_SECONDS)

    def _apply(self, record: etcd_pb2.KeyValue) -> None:
        """Takes what a record says: nothing, where it is gone or cannot be read, which names nobody to call."""
        member = read_member(record) if record.value else None
        if member is not None:
            self._members[record.key] = member
            return
        self._members.pop(record.key, None)
        if record.value:
            log.warning("a member's record cannot be read", extra={"key": shown(record.key)})

    def _tell(self) -> None:
        found: dict[str, set[str]] = {}
        for member in self._members.values():
            for service in member.services:
                found.setdefault(service, set()).add(member.address)
        known = {service: frozenset(addresses) for service, addresses in found.items()}
        before, self._known = self._known, known
        for service, uses in self._uses.items():
            addresses = self.addresses(service)
            if addresses != before.get(service, frozenset()):
                log.info("replicas changed", extra={"of": service, "count": len(addresses)})
                for use in uses:
                    use(addresses)

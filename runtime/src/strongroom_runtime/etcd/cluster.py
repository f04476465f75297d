"""This process as a member of the cluster: its lease, its views, and commits that wait for the other members.

The promise: a read that starts after a commit has returned, on any member, sees it.
See `docs/decisions/0002-acknowledged-writes.md`.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator

import msgspec

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.batch import Batcher, Outcome
from strongroom_runtime.etcd.change import Change
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.members import (
    MEMBERS,
    Confirm,
    Member,
    Peer,
    mark_of,
    named,
    read_member,
    shown,
    written_by,
)
from strongroom_runtime.etcd.prefix import MemberLease, PrefixView
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.tasks import end

log = logging.getLogger(__name__)

TTL_SECONDS = 3


class Cluster:
    """One for each process.

    Args:
        client: the cluster's etcd.
        confirm: asks another member; `link.peers.PeerClient.confirm`.
        clock: its monotonic time bounds how long this process serves from memory.
        ttl_seconds: of the member lease: how long a write waits for a member that was stopped.
    """

    def __init__(
        self,
        client: EtcdClient,
        confirm: Confirm,
        *,
        clock: Clock | None = None,
        ttl_seconds: int = TTL_SECONDS,
    ) -> None:
        self.client = client
        self._batcher = Batcher(client)
        self._confirm = confirm
        self._clock = clock or SystemClock()
        self._ttl = ttl_seconds
        self._views: dict[str, PrefixView] = {}
        self._peers: dict[bytes, Peer] = {}
        self._address = ""
        self._serving: tuple[str, ...] = ()
        self._found: etcd_pb2.RangeResponse | None = None  # what `_elsewhere` was made of
        self._elsewhere: dict[bytes, Member | None] = {}
        self._records = self._key = b""
        self._lease = 0
        self._member_lease = MemberLease()
        self._task: asyncio.Task[None] | None = None
        if client.lineage is not None:
            client.lineage.on_break(self._lose)

    def _lose(self) -> None:
        """Serves nothing from memory any more: in an etcd that went back, nobody need know of this member."""
        self._member_lease.certain_until = 0.0

    def view(self, prefix: str) -> PrefixView:
        """Returns the view of a prefix, such as `kv/`. All are asked for before `start`."""
        if prefix not in self._views:
            if self._task is not None:
                raise RuntimeError("views are made before the cluster starts")
            self._views[prefix] = PrefixView(
                self.client, prefix.encode(), self._member_lease, self._clock.monotonic
            )
        return self._views[prefix]

    def certain(self) -> bool:
        """Whether this process may serve from memory: no writer can have given up on it yet."""
        return self._clock.monotonic() < self._member_lease.certain_until

    @property
    def record(self) -> str:
        """What names this process among the members, another each time it becomes one; empty before that."""
        return self._key.decode()

    async def is_gone(self, record: str) -> bool:
        """Returns whether a member is one no more: its process is dead, stopped or cut off, or has another record.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        key = record.encode()
        return key.startswith(MEMBERS) and not (await self.client.range(key, keys_only=True)).kvs

    async def start(self, address: str, service: str, name: str = "") -> None:
        """Registers under an address for confirmations, and begins to follow the prefixes.

        Args:
            address: host:port of this process.
            service: one that runs here. Where etcd has users, this process's writes its records.
            name: of this process and no other before or after it, for whoever knows when it is dead (`members.bury`).

        Raises:
            ServiceError: UNAVAILABLE.
        """
        self._address = address
        self._records = written_by(service) + (named(name) if name else b"")
        await self._register()
        self._task = asyncio.create_task(self._keep_alive(), name="member-lease")

    async def stop(self) -> None:
        """Forgets everything and withdraws, so that writers need not wait for the lease."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)
        await self._withdraw()

    async def announce(self, services: tuple[str, ...]) -> None:
        """Says which services take calls here, from now on and after the lease was lost too.

        Where etcd is away it is said with the next keep-alive that finds it.
        """
        self._serving = services
        with contextlib.suppress(ServiceError):
            await self._say_services()

    async def applied(self, prefix: str, revision: int) -> None:
        """Answers another member: returns once a revision is applied here, or nothing is kept in memory."""
        view = self._views.get(prefix)
        if view is not None:
            await view.reached(revision)

    async def commit(self, change: Change, prefix: str) -> Outcome:
        """Runs a transaction on keys below one prefix; returns when every member knows of it.

        Raises:
            ServiceError: UNAVAILABLE; it may have been committed all the same.
        """
        outcome = await self._batcher.run(change)
        if outcome.changed:
            view = self._views.get(prefix)
            if view is not None and view.applied < outcome.revision:
                await self._apply(view, change, outcome.revision)
            others = self._others(outcome.members)
            waits = [
                self._peer(key, member).wait(prefix, outcome.revision)
                for key, member in others.items()
                if member is None or prefix in member.prefixes
            ]
            if waits:
                await asyncio.gather(*waits)
        return outcome

    async def _apply(self, view: PrefixView, change: Change, revision: int) -> None:
        """Tells this process's own view at once, without waiting for the watch."""
        for key, value in change.puts.items():
            view.apply(key, value, revision)
        for key in change.deletes:
            view.apply(key, None, revision)
        if change.ranges:
            await view.reached(revision)  # which keys they were only the watch knows

    def _others(self, members: etcd_pb2.RangeResponse) -> dict[bytes, Member | None]:
        """Returns the other members that a transaction found, None for a record that cannot be read.

        What many found together is looked at once.
        """
        if members is not self._found:
            self._found = members
            present = {kv.key for kv in members.kvs}
            for key in [k for k in self._peers if k not in present]:
                del self._peers[key]
            self._elsewhere = {kv.key: read_member(kv) for kv in members.kvs if kv.key != self._key}
        return self._elsewhere

    def _peer(self, key: bytes, member: Member | None) -> Peer:
        if key not in self._peers:
            if member is None:
                log.error(
                    "a member's record cannot be read; writes wait until it has withdrawn",
                    extra={"key": shown(key)},
                )
            self._peers[key] = Peer(self.client, key, member, self._confirm, float(self._ttl))
        return self._peers[key]

    async def _register(self) -> None:
        sent = self._clock.monotonic()
        lease = await self.client.grant(self._ttl)
        # A new name each time: the absence of the old one tells writers that its memory is gone.
        key = self._records + secrets.token_hex(8).encode()
        member = Member(self._address, tuple(self._views), services=self._serving)
        request = etcd_pb2.TxnRequest()
        put = request.success.add().request_put
        put.key, put.value, put.lease = key, msgspec.msgpack.encode(member), lease.ID
        await self.client.transaction(request)
        self._key, self._lease = key, lease.ID
        for view in self._views.values():
            view.start()
        self._member_lease.certain_until = sent + lease.TTL

    async def _withdraw(self) -> None:
        """Forgets everything first, and only then lets writers know."""
        self._member_lease.certain_until = 0.0
        for view in self._views.values():
            await view.stop()
        if self._lease:
            with contextlib.suppress(ServiceError):
                await self.client.revoke(self._lease)
        self._lease = 0

    async def _keep_alive(self) -> None:
        work = Repeated("the keeping of the member lease")
        while True:
            with work.turn():
                async for _ in self._renewals():
                    work.goes_well()
                if self._lease:
                    log.warning("the member lease was lost; registering anew")
                await self._withdraw()
                await self._register()
                continue
            await asyncio.sleep(self._ttl / 10)

    async def _renewals(self) -> AsyncIterator[None]:
        """Renews the lease until it is lost or this member is asked to withdraw."""
        if not self._lease:
            return
        try:
            async with self.client.renewing() as stream:
                while True:
                    sent = self._clock.monotonic()
                    await stream.write(etcd_pb2.LeaseKeepAliveRequest(ID=self._lease))
                    async with asyncio.timeout(self._ttl):
                        answer = await stream.read()
                    if not isinstance(answer, etcd_pb2.LeaseKeepAliveResponse):
                        return
                    self.client.take(answer.header)
                    found = await self._say_services()
                    if found is None:
                        return
                    # A leader that is one no more, and does not know it yet, renews what runs out at the others. One
                    # whose term is that of a later linearizable read was the leader.
                    if found.raft_term != answer.header.raft_term:
                        raise ServiceError(Kind.UNAVAILABLE, "etcd changed its leader meanwhile")
                    if answer.TTL <= 0:
                        return
                    self._member_lease.certain_until = sent + answer.TTL
                    yield
                    await asyncio.sleep(self._ttl / 3)
        except TimeoutError:
            raise ServiceError(Kind.UNAVAILABLE, "etcd did not renew the lease in time") from None

    async def _say_services(self) -> etcd_pb2.ResponseHeader | None:
        """Brings the record up to date.

        Returns:
            The header of a linearizable read that found it; None where it is not there, or a writer asked this member
            to withdraw.
        """
        while self._key:
            # No transaction: releases of etcd that are full refuse those that only read as well.
            found = await self.client.range(self._key)
            record, mark = found.kvs, (await self.client.range(mark_of(self._key))).kvs
            if not record or mark:
                return None
            member = read_member(record[0])
            if member is None:
                return None  # somebody wrote over it: this process registers anew
            if member.services == self._serving:
                return found.header
            request = etcd_pb2.TxnRequest()
            # A record that went with its lease does not come back.
            request.compare.add(
                key=record[0].key, target=etcd_pb2.Compare.VALUE, value=record[0].value
            )
            put = request.success.add().request_put
            put.key, put.ignore_lease = record[0].key, True
            put.value = msgspec.msgpack.encode(
                msgspec.structs.replace(member, services=self._serving)
            )
            await self.client.transaction(request)
        return None

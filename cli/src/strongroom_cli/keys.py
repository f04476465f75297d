"""Where the services of a process get their keys, and what happens when keys come and go."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import grpc

from strongroom.seal.v1 import seal_pb2
from strongroom_runtime.barrier import KeyHolder, KeyRing
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.tasks import end

if TYPE_CHECKING:
    from strongroom_seal.seal import Seal

_WATCH = "/strongroom.seal.v1.KeyService/WatchKeyRing"
_CONFIRM = "/strongroom.seal.v1.KeyService/ConfirmKeyRing"
_RETRY_SECONDS = 0.2
_CONNECT_SECONDS = 5.0


class Runs(Protocol):
    """Runs only while there are keys."""

    async def start(self) -> None:
        """Starts."""
        ...

    async def stop(self) -> None:
        """Stops."""
        ...


class KeySource(Protocol):
    """Brings keys to a process."""

    def start(self) -> None:
        """Begins to."""
        ...

    async def stop(self) -> None:
        """Ends it, and what runs with the keys."""
        ...


class _Lifecycle:
    """Starts and stops services as keys come and go, one change after another."""

    def __init__(self, holders: Mapping[str, KeyHolder], running: Sequence[Runs]) -> None:
        self.holders = holders
        self._running = running
        self._started: list[Runs] = []
        self._wanted = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._changes = Repeated("the start and the end of services")
        self._starts = Repeated("the start of services")

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="service-lifecycle")

    def changed(self) -> None:
        self._wanted.set()

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)
        await self._stop_all()
        for holder in self.holders.values():
            holder.replace(None)

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            sealed = any(holder.sealed for holder in self.holders.values())
            with self._changes.turn():
                if sealed and self._started:
                    await self._stop_all()
                elif not sealed and not self._started:
                    await self._start_all()
                continue
            self._look_again()

    async def _start_all(self) -> None:
        for each in self._running:
            # Before it has: one that fails half-way is stopped as well.
            self._started.append(each)
            with self._starts.turn(each):
                await each.start()
                continue
            # etcd is away, say, or the keys went again: try anew, all of it.
            await self._stop_all()
            self._look_again()
            return

    def _look_again(self) -> None:
        asyncio.get_running_loop().call_later(_RETRY_SECONDS, self.changed)

    async def _stop_all(self) -> None:
        # To the end, even where the one who waits is cancelled: a service that was stopped half-way has not written
        # all that it has to.
        await asyncio.shield(self._stop_each())

    async def _stop_each(self) -> None:
        async with self._stopping:
            while self._started:
                await self._started.pop().stop()


class LocalKeys:
    """Keys from the seal of the same process."""

    def __init__(
        self, seal: "Seal", holders: Mapping[str, KeyHolder], running: Sequence[Runs]
    ) -> None:
        self._seal = seal
        self._lifecycle = _Lifecycle(holders, running)

    def start(self) -> None:
        """Takes the keys, now and at each change."""
        self._lifecycle.start()
        self._seal.subscribe(self._changed)
        self._changed()

    async def stop(self) -> None:
        """Ends what runs with the keys, and forgets them."""
        await self._lifecycle.stop()

    def _changed(self) -> None:
        for name, holder in self._lifecycle.holders.items():
            holder.replace(None if self._seal.sealed else self._seal.ring.ring_for(name))
        self._lifecycle.changed()


class RemoteKeys:
    """Keys from a seal elsewhere, each service's by the identity in its own certificate.

    While no seal can be reached the keys stay: only the word of a seal takes them away, and that only once no other
    can be found that is open. One that was restarted is closed until it is given shares, while others work.

    Args:
        connects: opens a channel to a seal, by service, each with that service's certificate.
        seals: where seals are now; another is asked when one breaks off or is closed.
        holders: where keys go, by service.
        running: what runs with the keys.
    """

    def __init__(
        self,
        connects: Mapping[str, Callable[[str], grpc.aio.Channel]],
        seals: Callable[[], Sequence[str]],
        holders: Mapping[str, KeyHolder],
        running: Sequence[Runs],
    ) -> None:
        self._lifecycle = _Lifecycle(holders, running)
        self._followers = {
            name: _Follower(connects[name], seals, partial(self._take, name)) for name in holders
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Takes the keys, now and at each change."""
        self._lifecycle.start()
        self._tasks = [
            asyncio.create_task(follower.run(), name=f"follow-keys-{name}")
            for name, follower in self._followers.items()
        ]

    async def stop(self) -> None:
        """Ends what runs with the keys, and forgets them."""
        for task in self._tasks:
            await end(task)
        await self._lifecycle.stop()

    def _take(self, name: str, message: seal_pb2.WatchKeyRingResponse) -> None:
        ring = None
        if not message.sealed:
            ring = KeyRing(dict(message.terms), message.name_key, message.active_term)
        self._lifecycle.holders[name].replace(ring)
        self._lifecycle.changed()


class _Follower:
    """Asks one seal after the other for the keys of one service, and stays with one that is open.

    Args:
        connect: opens a channel to a seal.
        seals: where seals are now.
        take: what a seal says: keys, or that there are none.
    """

    def __init__(
        self,
        connect: Callable[[str], grpc.aio.Channel],
        seals: Callable[[], Sequence[str]],
        take: Callable[[seal_pb2.WatchKeyRingResponse], None],
    ) -> None:
        self._connect = connect
        self._seals = seals
        self._take = take
        self._not_open: set[str] = set()  # those that were closed or away, since one was open
        self._work = Repeated("the following of keys")

    async def run(self) -> None:
        """Follows until cancelled."""
        for turn in itertools.count():
            seals = self._seals()
            self._work.only(seals)
            if seals:
                seal = seals[turn % len(seals)]
                with self._work.turn(seal):
                    await self._ask(seal)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _ask(self, seal: str) -> None:
        channel = self._connect(seal)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await channel.channel_ready()
            await self._follow(seal, channel)
        except Exception:
            self._not_open.add(seal)
            raise
        finally:
            await channel.close()

    async def _follow(self, seal: str, channel: grpc.aio.Channel) -> None:
        watch = channel.unary_stream(
            _WATCH,
            seal_pb2.WatchKeyRingRequest.SerializeToString,
            seal_pb2.WatchKeyRingResponse.FromString,
        )
        async for message in watch(seal_pb2.WatchKeyRingRequest(confirms=True)):
            if not message.sealed:
                self._not_open.clear()
                self._work.only(())
                self._take(message)
                await _confirm(channel, message)
                continue
            self._not_open.add(seal)
            if self._not_open.issuperset(self._seals()):
                self._take(message)
                await _confirm(channel, message)
            if len(self._seals()) > 1:
                return


async def _confirm(channel: grpc.aio.Channel, message: seal_pb2.WatchKeyRingResponse) -> None:
    """Tells a seal that what it said was done: who opened or closed it waits for that."""
    if not message.stream_id:  # of an earlier version
        return
    confirm = channel.unary_unary(
        _CONFIRM,
        seal_pb2.ConfirmKeyRingRequest.SerializeToString,
        seal_pb2.ConfirmKeyRingResponse.FromString,
    )
    request = seal_pb2.ConfirmKeyRingRequest(stream_id=message.stream_id, change=message.change)
    await confirm(request, timeout=_CONNECT_SECONDS)

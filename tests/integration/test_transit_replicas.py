"""Replicas of transit beside a platform: they come, leave and die under load, and all know the same keys."""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf.message import Message

from strongroom.etcd.v3 import etcd_pb2
from strongroom.transit.v1 import cipher_pb2, key_pb2, stream_pb2, stream_pb2_grpc
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig, prefix_end
from strongroom_runtime.etcd.members import MEMBERS, Member
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.transport.certificates import Identity
from strongroom_runtime.transport.credentials import Identities
from strongroom_runtime.transport.server import InternalServer
from tests.integration.client import AskError, Client
from tests.integration.platforms import (
    ROOT,
    TOPOLOGIES,
    Platform,
    beside,
    server_of,
    services,
    start,
    until,
)
from tests.integration.test_grpc import AS_ROOT, stub

CLIENTS = 6
PAUSE_SECONDS = 0.01  # without one they would take all of a small machine, on which replicas are to start meanwhile
DOMAIN = "strongroom.internal"
METHODS = response_classes(
    cipher_pb2.DESCRIPTOR.services_by_name["CipherService"],
    key_pb2.DESCRIPTOR.services_by_name["KeyService"],
)
_numbers = itertools.count()


@pytest.fixture(scope="module", params=TOPOLOGIES)
def platform(request: pytest.FixtureRequest, shared_folder: Path) -> Iterator[Platform]:
    with start(shared_folder / request.param, request.param) as platform:
        assert platform.http("POST", "sys/mounts/transit", json={"type": "transit"}).ok
        yield platform


@pytest.fixture
def key(platform: Platform) -> str:
    """A key of each test's own."""
    name = f"key{next(_numbers)}"
    assert platform.http("POST", f"transit/keys/{name}").ok
    return name


def serving(platform: Platform) -> set[str]:
    """Returns where transit takes calls now, as the members' records say."""
    data = platform.folder / "data"
    endpoint = f"127.0.0.1:{(data / 'etcd' / 'port').read_text().strip()}"

    async def ask() -> set[str]:
        client = EtcdClient(EtcdConfig((endpoint,), Identity.of(data / "pki", "client")))
        try:
            found = await client.range(MEMBERS, prefix_end(MEMBERS))
        finally:
            await client.close()
        members = [msgspec.msgpack.decode(kv.value, type=Member) for kv in found.kvs]
        return {member.address for member in members if "transit" in member.services}

    return asyncio.run(ask())


@dataclass
class Replica:
    """A replica and its supervisor."""

    supervisor: "subprocess.Popen[bytes]"

    @property
    def process(self) -> Any:
        """The replica itself."""
        return server_of(self.supervisor.pid)

    def leave(self) -> None:
        self.supervisor.send_signal(signal.SIGTERM)
        assert self.supervisor.wait(120) == 0

    def kill(self) -> None:
        # Stopped first, since with its end the child would be told to end in peace.
        self.supervisor.send_signal(signal.SIGSTOP)
        self.process.kill()
        self.supervisor.kill()
        self.supervisor.wait()


class Replicas:
    """Those that run beside a platform."""

    def __init__(self, platform: Platform, folder: Path, stack: contextlib.ExitStack) -> None:
        self._platform, self._folder, self._stack = platform, folder, stack
        self._running: list[Replica] = []

    def have(self, count: int) -> list[Replica]:
        """Returns so many that take calls, beside that of the platform itself; starts those that are missing."""
        self._running = [each for each in self._running if each.supervisor.poll() is None]
        while len(self._running) < count:
            self._running.append(self._start())
        until(lambda: len(serving(self._platform)) == 1 + len(self._running))
        return self._running[:count]

    def _start(self) -> Replica:
        folder = self._folder / f"replica{next(_numbers)}"
        running = services(folder, "transit", *beside(self._platform))
        return Replica(self._stack.enter_context(running))


@pytest.fixture(scope="module")
def replicas(platform: Platform, shared_folder: Path) -> Iterator[Replicas]:
    with contextlib.ExitStack() as stack:
        yield Replicas(platform, shared_folder, stack)


@dataclass
class Load:
    """Clients that encrypt and decrypt, each one request after the other with little between them."""

    platform: Platform
    key: str
    failures: list[str] = field(default_factory=list)
    done: list[int] = field(default_factory=lambda: [0] * CLIENTS)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        for number in range(CLIENTS):
            self._threads.append(threading.Thread(target=self._run, args=(number,)))
            self._threads[-1].start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)

    def goes_on(self, each: int = 5) -> None:
        """Returns once every client has had some more answers."""
        before = list(self.done)
        until(lambda: all(now >= then + each for now, then in zip(self.done, before, strict=True)))

    def _run(self, number: int) -> None:
        client = self.platform.client()
        sealed = ""
        while not self._ending.is_set():
            try:
                if sealed:
                    answer = self._ask(client, "decrypt", {"ciphertext": sealed})
                    assert answer["plaintext"] == "eA==", answer
                    sealed = ""
                else:
                    sealed = self._ask(client, "encrypt", {"plaintext": "eA=="})["ciphertext"]
                self.done[number] += 1
                time.sleep(PAUSE_SECONDS)
            except (AskError, AssertionError) as error:
                self.failures.append(str(error))
                time.sleep(2 * PAUSE_SECONDS)

    def _ask(self, client: Client, operation: str, body: dict[str, str]) -> Any:
        answer = client.ask("POST", f"transit/{operation}/{self.key}", ROOT, json=body)
        assert answer.status_code == 200, (operation, answer.status_code, answer.text)
        return answer.json()["data"]


def _split_only(platform: Platform) -> None:
    if "transit" not in platform.pids:
        pytest.skip("the gateway's own process comes first there")


def test_all_replicas_get_calls_and_one_that_hangs_gets_few(
    platform: Platform, key: str, replicas: Replicas
) -> None:
    _split_only(platform)
    some = replicas.have(2)
    used = [sum(replica.process.cpu_times()[:2]) for replica in some]
    with Load(platform, key) as load:
        for _ in range(100):  # CPU is counted in hundredths of a second, which are many calls
            load.goes_on(50)
            now = [sum(replica.process.cpu_times()[:2]) for replica in some]
            if all(after > before for after, before in zip(now, used, strict=True)):
                break
    assert load.failures == []
    for after, before in zip(now, used, strict=True):
        assert after > before
    stopped = some[0].process.pid
    with Load(platform, key) as load:
        os.kill(stopped, signal.SIGSTOP)
        try:
            # As soon as its open calls are as many as those of the others, it gets no more.
            before = sum(load.done)
            until(lambda: sum(load.done) >= before + 200)
        finally:
            os.kill(stopped, signal.SIGCONT)
        load.goes_on()
    # None, unless it was stopped for longer than it takes to give it up, on a busy machine.
    assert len(load.failures) <= CLIENTS


class Direct:
    """A gateway that asks one replica alone."""

    def __init__(self, platform: Platform, address: str) -> None:
        pki = platform.folder / "data" / "pki"
        identities = Identities(pki, DOMAIN, ["gateway"])
        connect = identities.connector("gateway", "transit")
        self._remote = RemoteCaller(connect, [address], METHODS, wait_seconds=10)
        found = platform.http("GET", "sys/mounts/transit").json()["data"]
        self._mount = MountContext("transit/", "transit", found["uuid"], found["accessor"])

    async def ask(self, service: str, method: str, request: Message) -> Any:
        context = RequestContext("r", mount=self._mount, may_create=True, may_update=True)
        return await self._remote.call(
            f"/strongroom.transit.v1.{service}/{method}", request, context
        )

    async def encrypt(self, key: str) -> str:
        request = cipher_pb2.EncryptRequest(name=key, plaintext=b"x")
        return str((await self.ask("CipherService", "Encrypt", request)).ciphertext)

    async def decrypt(self, key: str, sealed: str) -> bytes:
        request = cipher_pb2.DecryptRequest(name=key, ciphertext=sealed)
        return bytes((await self.ask("CipherService", "Decrypt", request)).plaintext)

    async def rotate(self, key: str) -> None:
        await self.ask("KeyService", "RotateKey", key_pb2.RotateKeyRequest(name=key))

    async def configure(self, key: str, **options: Any) -> None:
        request = key_pb2.ConfigureKeyRequest(name=key, **options)
        await self.ask("KeyService", "ConfigureKey", request)

    async def close(self) -> None:
        await self._remote.close()


@contextlib.asynccontextmanager
async def direct(platform: Platform, addresses: set[str]) -> AsyncIterator[list[Direct]]:
    replicas = [Direct(platform, address) for address in sorted(addresses)]
    try:
        yield replicas
    finally:
        for replica in replicas:
            await replica.close()


def test_what_one_replica_did_all_know_at_once(platform: Platform, replicas: Replicas) -> None:
    replicas.have(3)
    addresses = serving(platform)
    name = f"shared{next(_numbers)}"

    async def check() -> None:
        async with direct(platform, addresses) as each:
            for round_ in range(100):
                # Each does something in its turn; all others are asked at once.
                one = each[round_ % len(each)]
                others = [replica for replica in each if replica is not one]
                key = f"{name}-{round_ // 10}"
                if round_ % 10 == 0:
                    created = key_pb2.CreateKeyRequest(name=key)
                    await one.ask("KeyService", "CreateKey", created)
                    first = await one.encrypt(key)
                else:
                    await one.rotate(key)
                wanted = f"vault:v{round_ % 10 + 1}:"
                sealed = [await one.encrypt(key)]
                sealed += await asyncio.gather(*(other.encrypt(key) for other in others))
                assert all(text.startswith(wanted) for text in sealed), (wanted, sealed)
                opened = [await replica.decrypt(key, text) for replica in each for text in sealed]
                assert set(opened) == {b"x"}
                if round_ % 10 == 9:
                    await one.configure(key, min_decryption_version=2)
                    refused = await asyncio.gather(
                        *(replica.decrypt(key, first) for replica in each),
                        return_exceptions=True,
                    )
                    assert all(
                        isinstance(error, ServiceError) and "too old" in error.message
                        for error in refused
                    ), refused
                    await one.configure(key, min_decryption_version=1, deletion_allowed=True)
                    assert {await replica.decrypt(key, first) for replica in others} == {b"x"}
                    await one.ask("KeyService", "DeleteKey", key_pb2.DeleteKeyRequest(name=key))
                    gone = await asyncio.gather(
                        *(replica.decrypt(key, first) for replica in each),
                        return_exceptions=True,
                    )
                    assert all(isinstance(error, ServiceError) for error in gone), gone

    asyncio.run(check())


def test_rotation_under_load_fails_nothing(
    platform: Platform, key: str, replicas: Replicas
) -> None:
    replicas.have(3)
    with Load(platform, key) as load, platform.client() as client:
        for number in range(100):
            rotated = client.ask("POST", f"transit/keys/{key}/rotate", ROOT)
            assert rotated.status_code == 200, rotated.text
            made = client.ask("POST", f"transit/encrypt/{key}", ROOT, json={"plaintext": "eA=="})
            assert made.json()["data"]["ciphertext"].startswith(f"vault:v{number + 2}:")
    assert load.failures == []


class Impostor:
    """A process with the certificate of kv that registers as a replica of transit, and remembers what it is asked."""

    def __init__(self, platform: Platform) -> None:
        self._data = platform.folder / "data"
        self.asked: list[str] = []

    async def run(self, meanwhile: Callable[[], None]) -> None:
        table = HandlerTable()
        table.add(cipher_pb2.DESCRIPTOR.services_by_name["CipherService"], self)
        server = InternalServer(table, Identities(self._data / "pki", DOMAIN, ["kv"]))
        address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
        endpoint = f"127.0.0.1:{(self._data / 'etcd' / 'port').read_text().strip()}"
        client = EtcdClient(EtcdConfig((endpoint,), Identity.of(self._data / "pki", "client")))
        lease = await client.grant(600)
        request = etcd_pb2.TxnRequest()
        record = msgspec.msgpack.encode(Member(address, (), services=("transit",)))
        request.success.add().request_put.MergeFrom(
            etcd_pb2.PutRequest(key=MEMBERS + b"impostor", value=record, lease=lease.ID)
        )
        await client.transaction(request)
        try:
            await asyncio.to_thread(meanwhile)
        finally:
            await client.revoke(lease.ID)
            await client.close()
            await server.stop()

    def __getattr__(self, method: str) -> Any:
        async def answer(request: Message, context: RequestContext) -> Message:
            self.asked.append(method)
            raise ServiceError(Kind.INTERNAL, "an impostor was asked")

        return answer


def test_a_process_with_another_certificate_gets_nothing(platform: Platform, key: str) -> None:
    impostor = Impostor(platform)
    log = platform.folder / "output.log"

    def meanwhile() -> None:
        with Load(platform, key) as load:
            # The gateway has tried to reach it, and says that it is not who it should be.
            until(lambda: "nobody with the right certificate answers" in log.read_text())
            load.goes_on(20)
        assert load.failures == []

    asyncio.run(impostor.run(meanwhile))
    assert impostor.asked == []


class Stream(threading.Thread):
    """A client that encrypts over one gRPC stream for as long as the block lasts."""

    def __init__(self, platform: Platform, key: str) -> None:
        super().__init__()
        self._platform, self._key = platform, key
        self._ending = threading.Event()
        self._room = threading.Semaphore(4)  # batches that wait for their answers
        self.sent = 0
        self.answered: list[int] = []
        self.error: grpc.RpcError | None = None

    def __enter__(self) -> "Stream":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join(60)

    def _batches(self) -> Iterator[stream_pb2.EncryptStreamRequest]:
        items = [stream_pb2.EncryptStreamItem(plaintext=b"x")] * 50
        while not self._ending.is_set():
            self._room.acquire()
            self.sent += 1
            yield stream_pb2.EncryptStreamRequest(mount="transit", name=self._key, items=items)

    def run(self) -> None:
        with self._platform.channel() as channel:
            streams = stub(stream_pb2_grpc.TransitStreamServiceStub, channel)
            try:
                for answer in streams.EncryptStream(self._batches(), metadata=AS_ROOT):
                    self.answered.append(len(answer.items))
                    self._room.release()
            except grpc.RpcError as error:
                self.error = error
            finally:
                self._room.release(4)


def test_replicas_come_and_leave_and_no_request_fails(
    platform: Platform, key: str, replicas: Replicas
) -> None:
    with Load(platform, key) as load, Stream(platform, key) as stream:
        for leaving in replicas.have(3)[:2]:
            load.goes_on()
            leaving.leave()
            load.goes_on()
        for leaving in replicas.have(2):
            load.goes_on()
            leaving.leave()
        load.goes_on()
    assert load.failures == []
    assert stream.error is None
    assert stream.answered == [50] * stream.sent


def test_the_replica_of_the_platform_itself_may_be_ended_and_comes_back(
    platform: Platform, key: str, replicas: Replicas
) -> None:
    _split_only(platform)
    replicas.have(1)
    with Load(platform, key) as load:
        for _ in range(
            3
        ):  # the gateway has its address from a configuration, and tries it as soon as it listens
            before = platform.child("transit")
            os.kill(before, signal.SIGTERM)
            until(lambda: platform.child("transit") != before)  # noqa: B023 - asked at once
            load.goes_on(20)
    assert load.failures == []


def test_a_killed_replica_costs_at_most_the_requests_that_it_had(
    platform: Platform, key: str, replicas: Replicas
) -> None:
    with Load(platform, key) as load:
        for killed, replica in enumerate(replicas.have(2), 1):
            load.goes_on()
            replica.kill()
            load.goes_on()
            assert len(load.failures) <= CLIENTS * killed, load.failures
    assert all("503" in failure for failure in load.failures), load.failures
    until(lambda: len(serving(platform)) == 1)

"""Users of an etcd with access control: logging in, tokens that end, and rights."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tests.unit.runtime.etcd.guarded import GuardedEtcd

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.session import Login, Session
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.storage import Plain, Transaction
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity

PASSWORD = "password-of-kv"
A = (Plain("m"), "a")
RING = KeyRing({1: os.urandom(32)}, os.urandom(64))


def store_of(client: EtcdClient, cluster: Cluster | None = None) -> EtcdStore:
    return EtcdStore(client, BarrierCodec("kv", KeyHolder(RING)), cluster)


@pytest.fixture
async def etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GuardedEtcd]:
    monkeypatch.setenv("ETCD_AUTH_TOKEN_TTL", "1")  # seconds
    etcd = GuardedEtcd(tmp_path / "etcd")
    await etcd.server.start()
    etcd.turn_on()
    etcd.add_user("kv", PASSWORD, "kv/", "cluster/")
    yield etcd
    await etcd.server.stop()


@pytest.fixture
async def client(etcd: GuardedEtcd) -> AsyncIterator[EtcdClient]:
    client = etcd.client("kv", PASSWORD)
    yield client
    await client.close()


async def no_confirmation(address: str, prefix: str, revision: int, timeout: float) -> None:
    raise AssertionError("there is no other member")


async def token_has_ended(client: EtcdClient) -> None:
    """Returns once etcd does not know a client's token; looks past the client, which would get a new one."""
    assert client._session is not None
    metadata = await client._session.metadata()
    while True:
        await asyncio.sleep(1.5)  # a look is a use: etcd counts from the last one
        try:
            await client._kv.Range(etcd_pb2.RangeRequest(key=b"kv/"), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            return


async def test_reads_and_writes_after_the_token_has_ended(client: EtcdClient) -> None:
    store = store_of(client)
    await store.commit(Transaction(puts={A: b"1"}))
    await token_has_ended(client)
    await store.commit(Transaction(puts={A: b"2"}))
    await token_has_ended(client)
    entry = await store.get(A)
    assert entry is not None
    assert entry.value == b"2"


async def test_a_watch_and_a_member_outlive_an_etcd_that_forgets_all_tokens(
    etcd: GuardedEtcd, client: EtcdClient
) -> None:
    cluster = Cluster(client, no_confirmation)
    store = store_of(client, cluster)
    await cluster.start("127.0.0.1:1", "kv")
    values: list[bytes | None] = []

    async def follow(start: int) -> None:
        async for changes in store.watch((Plain("m"),), from_revision=start):
            values.extend(event.value for event in changes.events)
            if values[-1] == b"last":
                return

    following = asyncio.create_task(follow(await store.revision() + 1))
    await store.commit(Transaction(puts={A: b"first"}))
    await etcd.server.kill()
    await etcd.server.start()
    while True:
        try:
            await store.commit(Transaction(puts={A: b"last"}))
        except ServiceError:
            continue
        break
    await following
    assert values[0] == b"first"
    view = cluster.view("kv/")
    while not view.certain():
        await asyncio.sleep(0.05)
    await cluster.stop()
    await client.range(b"cluster/members/")
    assert "cluster/members" not in etcd.ctl("get", "--prefix", "--keys-only", "cluster/")


async def test_nobody_reads_or_writes_outside_of_the_own_prefix(client: EtcdClient) -> None:
    other = EtcdStore(client, BarrierCodec("auth", KeyHolder(RING)))
    for attempt in (other.get(A), other.commit(Transaction(puts={A: b"1"}))):
        with pytest.raises(ServiceError, match="does not allow") as caught:
            await attempt
        assert caught.value.kind is Kind.UNAVAILABLE


async def test_a_watch_that_is_not_allowed_begins_once_it_is(
    etcd: GuardedEtcd, client: EtcdClient
) -> None:
    other = EtcdStore(client, BarrierCodec("auth", KeyHolder(RING)))
    start = await store_of(client).commit(Transaction(puts={A: b"1"}))

    async def first() -> list[bytes | None]:
        async for changes in other.watch((), from_revision=start):
            return [event.value for event in changes.events]
        return []

    waiting = asyncio.create_task(first())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    etcd.ctl("role", "grant-permission", "--prefix=true", "kv", "readwrite", "auth/")
    await other.commit(Transaction(puts={A: b"2"}))
    assert await waiting == [b"2"]


async def test_a_password_may_change_while_a_process_runs(
    etcd: GuardedEtcd, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    login = Login("kv", file.read_text)
    client = EtcdClient(EtcdConfig(etcd.server.config.endpoints, login=login))
    await client.range(b"kv/")
    etcd.ctl("user", "passwd", "kv", "--interactive=false", input="another-password")
    file.write_text("another-password")
    await client.range(b"kv/")
    await client.close()


async def test_a_wrong_password_is_said_and_not_shown(etcd: GuardedEtcd) -> None:
    client = etcd.client("kv", "wrong-password")
    with pytest.raises(ServiceError, match="refuses the user name or the password") as caught:
        await client.range(b"kv/")
    assert "wrong-password" not in str(caught.value)
    await client.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_user_is_not_in_the_way_of_an_etcd_without_access_control(
    tmp_path: Path, tls: bool
) -> None:
    """With TLS, etcd takes the name in the certificate for a user's as soon as it has access control."""
    pki.initialise(tmp_path / "pki", "etcd.internal", ["etcd"])
    identity = Identity.of(tmp_path / "pki", "etcd") if tls else None
    etcd = GuardedEtcd(tmp_path / "open", identity)
    await etcd.server.start()
    client = etcd.client("kv", PASSWORD)
    await client.range(b"auth/")
    etcd.turn_on()
    etcd.add_user("kv", PASSWORD, "kv/")
    await client.range(b"kv/")
    with pytest.raises(ServiceError, match="does not allow"):
        await client.range(b"auth/")
    await client.close()
    await etcd.server.stop()


def test_a_login_does_not_show_its_password(tmp_path: Path) -> None:
    config = EtcdConfig(("127.0.0.1:1",), login=Login("kv", lambda: PASSWORD))
    assert PASSWORD not in repr(config)


async def test_calls_at_once_share_one_login() -> None:
    logins: list[str] = []

    async def authenticate(user: str, password: str) -> str:
        await asyncio.sleep(0)
        logins.append(user)
        return f"token-{len(logins)}"

    session = Session(Login("kv", lambda: PASSWORD), authenticate)
    first = set(await asyncio.gather(*(session.metadata() for _ in range(10))))
    assert first == {(("token", "token-1"),)}
    old = await session.metadata()
    assert session.refused(old, "etcdserver: invalid auth token")
    assert not session.refused(old, "etcdserver: permission denied")
    assert session.refused((), "etcdserver: permission denied")  # of before access control
    new = await session.metadata()
    assert session.refused(old, "etcdserver: invalid auth token")  # a late answer to an old call
    assert await session.metadata() is new
    assert len(logins) == 2


async def test_a_login_that_was_refused_is_not_repeated_at_once(tmp_path: Path) -> None:
    clock, file = ManualClock(), tmp_path / "password"

    async def authenticate(user: str, password: str) -> str:
        return password

    session = Session(Login("kv", file.read_text), authenticate, clock)
    with pytest.raises(ServiceError, match="cannot be read"):
        await session.metadata()
    file.write_text("token")
    with pytest.raises(ServiceError, match="cannot be read"):
        await session.metadata()
    clock.advance(2)
    assert await session.metadata() == (("token", "token"),)

"""A process that starts waits for etcd, as far as waiting can help."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.unit.runtime.etcd.guarded import GuardedEtcd
from tests.unit.runtime.etcd.scripted import WELL, Peer, ScriptedServer, block

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd import waiting
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.http2 import frames
from strongroom_runtime.etcd.http2.frames import frame
from strongroom_runtime.etcd.refusal import RefusedError
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.waiting import Waiting
from strongroom_runtime.tasks import EndedError
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


async def test_it_goes_on_once_there_is_an_etcd_and_says_each_once(
    tmp_path: Path, stop: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", waiting.__name__)
    server = EmbeddedEtcd(tmp_path / "etcd")
    client, tries = EtcdClient(server.config), 0

    async def work() -> int:
        nonlocal tries
        tries += 1
        return (await client.grant(60)).ID

    working = asyncio.create_task(Waiting(stop).until_done(work))
    while tries < 3:
        await asyncio.sleep(0.01)
    assert not working.done()
    await server.start()
    async with asyncio.timeout(60):
        assert await working
    said = [(r.getMessage(), getattr(r, "reason", "")) for r in caplog.records]
    assert [message for message, _ in said] == ["waiting for etcd", "etcd answers"]
    assert "ConnectionRefusedError" in said[0][1]
    await client.close()
    await server.stop()


async def test_nothing_is_said_where_etcd_is_there(
    stop: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", waiting.__name__)
    assert await Waiting(stop).until_done(lambda: asyncio.sleep(0, "done")) == "done"
    assert not caplog.records


async def test_what_nobody_answers_is_asked_again(
    stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the leader died with what it was asked for: the members say nothing more of it."""
    monkeypatch.setattr(waiting, "_ATTEMPT_SECONDS", (0.05,))
    asked: list[int] = []

    async def silent(peer: Peer) -> None:
        await peer.greet()
        asked.append(await peer.request())
        await peer.request()
        peer.answer(await peer.request())

    async with ScriptedServer(silent) as server:
        client = EtcdClient(EtcdConfig((server.endpoint,)))

        async def work() -> str:
            if asked:
                return "done"
            await client.grant(3)
            raise AssertionError("nobody answers")

        async with asyncio.timeout(60):
            assert await Waiting(stop).until_done(work) == "done"
        assert len(asked) == 1
        await client.close()


async def test_it_ends_at_once_when_it_is_told_to(stop: asyncio.Event) -> None:
    client, ended = EtcdClient(EtcdConfig((f"127.0.0.1:{free_port()}",))), asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def reach() -> None:
        await client.status()

    for work in (reach, hang):
        stop.clear()
        working = asyncio.create_task(Waiting(stop).until_done(work))
        await asyncio.sleep(0.05)
        assert not working.done()
        stop.set()
        async with asyncio.timeout(60):
            with pytest.raises(EndedError):
                await working
    assert ended.is_set()
    await client.close()


async def test_a_name_that_is_not_known_yet_is_waited_for(
    stop: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[OSError | str] = [OSError("no such name"), OSError("no such name"), "10.0.0.1"]

    async def look_up() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert await Waiting(stop).until_done(look_up) == "10.0.0.1"
    assert [vars(record).get("reason") for record in caplog.records] == ["no such name"]


async def test_other_errors_are_not_waited_for(stop: asyncio.Event) -> None:
    async def fail() -> None:
        raise ServiceError(Kind.FAILED_PRECONDITION, "not the key of this seal")

    with pytest.raises(ServiceError, match="not the key"):
        await Waiting(stop).until_done(fail)


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    pki.initialise(tmp_path / "pki", "one.test", ["etcd", "kv"])
    pki.initialise(tmp_path / "others", "one.test", ["kv"])
    server = EmbeddedEtcd(tmp_path / "etcd", Identity.of(tmp_path / "pki", "etcd"))
    await server.start()
    yield server
    await server.stop()


async def refused(stop: asyncio.Event, client: EtcdClient) -> RefusedError:
    """Returns why a process cannot become a member, which has to be said at once."""

    async def confirm(address: str, prefix: str, revision: int, timeout: float) -> None:
        raise AssertionError("there is no other member")

    cluster = Cluster(client, confirm)
    async with asyncio.timeout(60):
        with pytest.raises(RefusedError) as caught:
            await Waiting(stop).until_done(lambda: cluster.start("127.0.0.1:1", "kv"))
    await client.close()
    return caught.value


@pytest.mark.parametrize("of_others", ["ca.pem", "kv.pem"])
async def test_certificates_of_another_authority_are_refused(
    secured: EmbeddedEtcd, stop: asyncio.Event, tmp_path: Path, of_others: str
) -> None:
    """Ours by etcd, or etcd's by us."""
    shutil.copytree(tmp_path / "pki", tmp_path / "mixed")
    for file in [of_others, "kv.key"] if of_others == "kv.pem" else [of_others]:
        shutil.copyfile(tmp_path / "others" / file, tmp_path / "mixed" / file)
    identity = Identity.of(tmp_path / "mixed", "kv")
    error = await refused(stop, EtcdClient(EtcdConfig(secured.config.endpoints, identity)))
    assert error.cause == "identity"
    assert "certificate" in error.message.lower()


async def test_tls_with_an_etcd_that_has_none_is_refused(
    stop: asyncio.Event, tmp_path: Path
) -> None:
    async def plain(peer: Peer) -> None:
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    pki.initialise(tmp_path, "one.test", ["kv"])
    async with ScriptedServer(plain) as server:
        config = EtcdConfig((server.endpoint,), Identity.of(tmp_path, "kv"))
        assert (await refused(stop, EtcdClient(config))).cause == "identity"


async def test_one_member_that_is_away_may_still_come(
    secured: EmbeddedEtcd, stop: asyncio.Event, tmp_path: Path
) -> None:
    """Only where no member at all can be trusted nothing is to be hoped for."""
    shutil.copytree(tmp_path / "pki", tmp_path / "mixed")
    shutil.copyfile(tmp_path / "others" / "ca.pem", tmp_path / "mixed" / "ca.pem")
    endpoints = (*secured.config.endpoints, f"127.0.0.1:{free_port()}")
    client = EtcdClient(EtcdConfig(endpoints, Identity.of(tmp_path / "mixed", "kv")))
    with pytest.raises(ServiceError) as caught:
        await client.status()
    assert not isinstance(caught.value, RefusedError)
    await client.close()


async def test_what_is_no_etcd_is_refused(stop: asyncio.Event) -> None:
    async def other(peer: Peer) -> None:
        await peer.greet()
        while True:
            stream = await peer.request()
            unknown = block([(":status", "200"), *WELL[:-1], ("grpc-status", "12")])
            ending = frames.END_HEADERS | frames.END_STREAM
            peer.write(frame(frames.HEADERS, ending, stream, unknown))

    async with ScriptedServer(other) as server:
        error = await refused(stop, EtcdClient(EtcdConfig((server.endpoint,))))
    assert error.cause == "endpoints"


async def test_users_that_may_not_are_refused(stop: asyncio.Event, tmp_path: Path) -> None:
    etcd = GuardedEtcd(tmp_path / "etcd")
    await etcd.server.start()
    etcd.turn_on()
    etcd.add_user("kv", "password-of-kv", "kv/")  # and not what members need
    for client, said in (
        (etcd.client("kv", "another"), "refuses the user name or the password"),
        (etcd.client("kv", "password-of-kv"), "does not allow this"),
        (EtcdClient(EtcdConfig(etcd.server.config.endpoints)), "wants a user"),
    ):
        error = await refused(stop, client)
        assert (error.cause, said in error.message) == ("login", True)
    await etcd.server.stop()

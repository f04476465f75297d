"""`strongroom etcd users --apply` against a real etcd."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.etcd.v3 import etcd_pb2
from strongroom_cli import outside_etcd
from strongroom_cli.settings import SERVICES
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig, prefix_end
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.codec import RawCodec
from strongroom_runtime.etcd.releases import known_data_loss, known_loose_rights
from strongroom_runtime.etcd.server import EmbeddedEtcd, release
from strongroom_runtime.etcd.session import Login
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.etcd.users import ROOT, User, Users
from strongroom_runtime.storage import Plain, Transaction

PREFIXES = {f"{name}/" for name in (*SERVICES, "cluster", "other")}


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[EtcdConfig]:
    """An etcd whose access control is turned off, and a file with a password for each user."""
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    outside_etcd.make_passwords(tmp_path / "passwords", SERVICES)
    yield server.config
    await server.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits less for an etcd that does not answer."""
    monkeypatch.setattr(outside_etcd, "_RETRY_SECONDS", 0.2)


def client_of(config: EtcdConfig, user: str, password: str) -> EtcdClient:
    return EtcdClient(EtcdConfig(config.endpoints, login=Login(user, lambda: password)))


async def readable(config: EtcdConfig, user: str, password: str) -> set[str]:
    """Returns the prefixes that a user may read."""
    found = set()
    client = client_of(config, user, password)
    for prefix in PREFIXES:
        try:
            await client.range(prefix.encode(), prefix_end(prefix.encode()))
        except ServiceError as error:
            assert "does not allow" in error.message
        else:
            found.add(prefix)
    await client.close()
    return found


@pytest.mark.parametrize(
    ("version", "lossy", "loose"),
    [
        ("3.4.23", False, True), ("3.4.44", False, False), ("3.5.1", True, True), ("3.5.2", True, True),
        ("3.5.16", False, True), ("3.5.30", False, False), ("3.6.10", False, True), ("3.6.11", False, False),
        ("3.7.0", False, False), ("3.5.3-rc.1", False, True), ("3.5.1-rc.0", True, True),
        ("3.5.2+built.here", True, True), ("", False, False), ("3.5", False, False), ("unknown", False, False),
    ],
)  # fmt: skip
def test_releases_that_are_known_to_be_wrong(version: str, lossy: bool, loose: bool) -> None:
    assert bool(known_data_loss(version)) is lossy
    assert bool(known_loose_rights(version)) is loose


async def test_it_makes_users_with_their_rights_and_then_changes_nothing(
    config: EtcdConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "passwords"
    first = await outside_etcd.apply(folder, config)
    version = await release(config)
    assert (known_loose_rights(version) in caplog.text) and (
        known_data_loss(version) in caplog.text
    )
    assert first[-1] == "access control: turned on"
    assert {f"strongroom-{service}: user made" for service in SERVICES} <= set(first)
    for service in SERVICES:
        allowed = {prefix for _, prefix in outside_etcd.rights(service)} & PREFIXES
        password = (folder / service).read_text()
        assert await readable(config, f"strongroom-{service}", password) == allowed
        assert password not in "".join(first)
    assert await outside_etcd.apply(folder, config) == []


async def test_it_goes_on_where_it_was_ended(config: EtcdConfig, tmp_path: Path) -> None:
    client = EtcdClient(config)
    with pytest.raises(ServiceError, match="name is empty"):  # the run ends there
        await Users(client, []).apply("root's", [User("strongroom-kv", "kv's"), User("", "x")])
    await client.close()
    await outside_etcd.apply(tmp_path / "passwords", config)
    password = (tmp_path / "passwords" / "kv").read_text()
    assert await readable(config, "strongroom-kv", password) == {"kv/", "cluster/"}


async def test_it_brings_passwords_and_rights_up_to_date(
    config: EtcdConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "passwords"
    await outside_etcd.apply(folder, config)
    root = (folder / ROOT).read_text()
    client = client_of(config, ROOT, root)
    # `cluster/` as earlier versions had it.
    wrong = [("read", "kv/"), ("readwrite", "auth/"), ("readwrite", "cluster/")]
    await Users(client, []).apply(root, [User("strongroom-kv", "other", wrong)])
    assert await readable(config, "strongroom-kv", "other") == {"kv/", "auth/", "cluster/"}
    await client.close()
    changes = await outside_etcd.apply(folder, config)
    assert sorted(changes) == [
        "strongroom-kv: may no longer use auth/",
        "strongroom-kv: may use cluster/",
        "strongroom-kv: may use cluster/asked/",
        "strongroom-kv: may use cluster/members/kv/",
        "strongroom-kv: may use kv/",
        "strongroom-kv: password set",
    ]
    password = (folder / "kv").read_text()
    assert await readable(config, "strongroom-kv", password) == {"kv/", "cluster/"}


async def test_it_waits_for_an_etcd_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_etcd, "_ATTEMPTS", 100)
    server = EmbeddedEtcd(tmp_path / "etcd")
    outside_etcd.make_passwords(tmp_path / "passwords", SERVICES)
    applying = asyncio.create_task(outside_etcd.apply(tmp_path / "passwords", server.config))
    await asyncio.sleep(0.3)  # it has tried, and nobody was there
    await server.start()
    assert "access control: turned on" in await applying
    await server.stop()


async def test_rights_are_kept_while_an_older_release_may_need_them(
    config: EtcdConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "passwords"
    await outside_etcd.apply(folder, config)
    root = (folder / ROOT).read_text()
    password = (folder / "kv").read_text()
    client = client_of(config, ROOT, root)
    before = User("strongroom-kv", password, [("readwrite", "cluster/"), ("read", "other/")])
    await Users(client, []).apply(root, [before])
    await client.close()
    changes = await outside_etcd.apply(folder, config, keep_rights=True)
    assert all("no longer" not in change for change in changes)
    assert "strongroom-kv: may use kv/" in changes
    assert "strongroom-kv: may use cluster/" not in changes  # to write to it, as before
    assert await readable(config, "strongroom-kv", password) == {"kv/", "cluster/", "other/"}
    assert await outside_etcd.apply(folder, config, keep_rights=True) == []
    after = await outside_etcd.apply(folder, config)
    assert {"strongroom-kv: may no longer use other/", "strongroom-kv: may use cluster/"} == set(
        after
    )


async def test_an_empty_password_is_refused(config: EtcdConfig, tmp_path: Path) -> None:
    (tmp_path / "passwords" / "kv").write_text("\n")
    with pytest.raises(ServiceError, match="kv: is empty"):
        await outside_etcd.apply(tmp_path / "passwords", config)


async def test_another_password_of_root_changes_nothing(config: EtcdConfig, tmp_path: Path) -> None:
    folder = tmp_path / "passwords"
    await outside_etcd.apply(folder, config)
    (folder / ROOT).write_text("other")
    with pytest.raises(ServiceError, match="refuses the user name or the password"):
        await outside_etcd.apply(folder, config)


async def put(client: EtcdClient, key: bytes, lease: int = 0) -> None:
    request = etcd_pb2.TxnRequest()
    request.success.add().request_put.MergeFrom(
        etcd_pb2.PutRequest(key=key, value=b"x", lease=lease)
    )
    await client.transaction(request)


async def delete(client: EtcdClient, key: bytes, end: bytes = b"") -> None:
    request = etcd_pb2.TxnRequest()
    request.success.add().request_delete_range.MergeFrom(
        etcd_pb2.DeleteRangeRequest(key=key, range_end=end)
    )
    await client.transaction(request)


async def test_a_service_writes_no_records_of_others(config: EtcdConfig, tmp_path: Path) -> None:
    folder = tmp_path / "passwords"
    await outside_etcd.apply(folder, config)
    kv, transit = (
        client_of(config, f"strongroom-{name}", (folder / name).read_text())
        for name in ("kv", "transit")
    )
    record, other = b"cluster/members/kv/1", b"cluster/members/transit/1"
    lease = await transit.grant(600)
    await put(transit, other, lease.ID)
    await put(kv, record)
    refused = [
        put(kv, other),
        put(kv, b"cluster/members/transit/2"),
        put(kv, b"cluster/members/2"),
        put(kv, b"cluster/other"),
        delete(kv, other),
        delete(kv, b"cluster/members/", prefix_end(b"cluster/members/")),
        delete(kv, b"cluster/", prefix_end(b"cluster/")),
        kv.revoke(lease.ID),
    ]
    for attempt in refused:
        with pytest.raises(ServiceError, match="does not allow"):
            await attempt
    found = await kv.range(b"cluster/members/", prefix_end(b"cluster/members/"))
    assert [each.key for each in found.kvs] == [record, other]
    await delete(kv, record)
    await kv.close()
    await transit.close()


async def test_members_wait_for_each_other_with_their_own_rights_alone(
    config: EtcdConfig, tmp_path: Path
) -> None:
    """A gateway that caches what auth writes cannot be reached: auth's user may ask it to withdraw."""
    folder = tmp_path / "passwords"
    await outside_etcd.apply(folder, config)
    clients = {
        name: client_of(config, f"strongroom-{name}", (folder / name).read_text())
        for name in ("auth", "gateway")
    }

    async def unreachable(address: str, prefix: str, revision: int, timeout: float) -> None:
        await asyncio.sleep(0.05)
        raise ServiceError(Kind.UNAVAILABLE, "cut off")

    auth, gateway = (Cluster(clients[name], unreachable, ttl_seconds=2) for name in clients)
    store = EtcdStore(auth.client, RawCodec("auth"), auth)
    view = gateway.view("auth/")
    await auth.start("a:1", "auth")
    await gateway.start("g:1", "gateway")
    await gateway.announce(("gateway",))
    while not view.certain():
        await asyncio.sleep(0.01)
    before = gateway._key
    await store.commit(Transaction(puts={(Plain("a"),): b"x"}))
    assert gateway._key != before or not gateway.certain()
    async with asyncio.timeout(60):
        while gateway._key == before or not view.certain():
            await asyncio.sleep(0.01)
    await auth.stop()
    await gateway.stop()
    for client in clients.values():
        await client.close()

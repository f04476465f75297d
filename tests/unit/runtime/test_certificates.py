"""Certificate files that change while a process runs."""

import asyncio
import datetime
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from tests.certificates import age
from tests.unit.runtime.link.echo import NAME, SERVICE, Echo, Text, table

from strongroom_runtime.context import RequestContext
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity, Renewable
from strongroom_runtime.transport.credentials import Identities
from strongroom_runtime.transport.server import InternalServer

DOMAIN = "example.test"
ECHO = f"/{NAME}/Echo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.initialise(tmp_path, DOMAIN, ["gateway", "echo"])
    return tmp_path


def reissue(folder: Path, service: str) -> None:
    """Renews a certificate and its key."""
    (folder / f"{service}.pem").unlink()
    pki.initialise(folder, DOMAIN, [service])


def test_files_that_did_not_change_are_not_taken_again(folder: Path) -> None:
    renewable = Renewable(Identity.of(folder, "echo"))
    before = renewable.current
    assert not renewable.look()
    assert renewable.current is before


def test_renewed_files_are_taken(folder: Path) -> None:
    renewable = Renewable(Identity.of(folder, "echo"))
    reissue(folder, "echo")
    assert renewable.look()
    assert renewable.current.texts.certificate == (folder / "echo.pem").read_bytes()
    assert renewable.current.texts.key == (folder / "echo.key").read_bytes()


def cut(folder: Path) -> None:
    file = folder / "echo.pem"
    file.write_bytes(file.read_bytes()[:300])


def cut_chain(folder: Path) -> None:
    file = folder / "echo.pem"
    file.write_bytes(file.read_bytes() + (folder / "gateway.pem").read_bytes()[:300])


def cut_key(folder: Path) -> None:
    file = folder / "echo.key"
    file.write_bytes(file.read_bytes()[:100])


def cut_ca(folder: Path) -> None:
    file = folder / "ca.pem"
    file.write_bytes(file.read_bytes()[:300])


def lose_key(folder: Path) -> None:
    (folder / "echo.key").unlink()


def other_key(folder: Path) -> None:
    (folder / "echo.key").write_bytes((folder / "gateway.key").read_bytes())


def other_service(folder: Path) -> None:
    for kind in ("pem", "key"):
        (folder / f"echo.{kind}").write_bytes((folder / f"gateway.{kind}").read_bytes())


def nameless(folder: Path) -> None:
    age(folder, DOMAIN, ["echo"])


@pytest.mark.parametrize(
    "spoil",
    [cut, cut_chain, cut_key, cut_ca, lose_key, other_key, other_service, nameless],
)
def test_what_does_not_fit_changes_nothing_and_is_said_once(
    folder: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    renewable = Identities(folder, DOMAIN, ["echo"]).of("echo")
    before = renewable.current
    kept = {file: file.read_bytes() for file in folder.iterdir()}
    spoil(folder)
    with caplog.at_level(logging.WARNING):
        assert not renewable.look()
        assert not renewable.look()
    assert renewable.current is before
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "changed certificate files were not taken"
    ]
    for file, content in kept.items():
        file.write_bytes(content)
    reissue(folder, "echo")
    assert renewable.look()


def test_one_that_has_ended_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renewable = Renewable(Identity.of(folder, "echo"))
    monkeypatch.setattr(pki, "_LEAF_DAYS", 0)
    reissue(folder, "echo")
    assert not renewable.look()


def no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> bool:
    with caplog.at_level(logging.WARNING):
        Renewable(Identity.of(folder, "echo")).look()
    return not caplog.records


def test_an_end_that_is_near_is_said_once_a_day(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pki, "_LEAF_DAYS", 825)
    monkeypatch.setattr(pki, "_BACKDATE", datetime.timedelta(days=5_000))
    reissue(folder, "echo")
    assert no_warning(folder, caplog)
    monkeypatch.setattr(pki, "_LEAF_DAYS", 20)
    reissue(folder, "echo")
    renewable = Renewable(Identity.of(folder, "echo"))
    with caplog.at_level(logging.WARNING):
        renewable.look()
        renewable.look()
    assert [record.message for record in caplog.records] == [
        "a certificate, or one of its CA, ends before long"
    ]


def test_a_certificate_is_due_long_before_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pki.initialise(folder, DOMAIN, ["echo"]) == []
    monkeypatch.setattr(pki, "_RENEWAL", datetime.timedelta(days=826))
    assert pki.initialise(folder, DOMAIN, ["echo"]) == ["echo"]


async def test_both_ends_of_the_link_take_what_another_authority_issued(folder: Path) -> None:
    """The CA itself is exchanged: first both are trusted, then certificates come from the new one alone."""
    server_side, caller_side = (Identities(folder, DOMAIN, [name]) for name in ("echo", "gateway"))
    server = InternalServer(table(Echo()), server_side, drain_seconds=1)
    port = await server.start("127.0.0.1:0")
    address = f"127.0.0.1:{port}"

    async def answered(remote: RemoteCaller) -> None:
        answer = await remote.call(ECHO, Text(value="kept"), RequestContext("r"))
        assert answer.value == "kept"

    connect = caller_side.connector("gateway", "echo")
    remote = RemoteCaller(connect, [address], response_classes(SERVICE))
    await answered(remote)
    before = (folder / "ca.pem").read_bytes()
    new = folder / "new"
    pki.initialise(new, DOMAIN, ["gateway", "echo"])
    (folder / "ca.pem").write_bytes(before + (new / "ca.pem").read_bytes())
    server_side.look()
    caller_side.look()
    for name in ("echo.pem", "echo.key", "gateway.pem", "gateway.key", "ca.pem"):
        (folder / name).write_bytes((new / name).read_bytes())
    server_side.look()
    caller_side.look()
    await answered(remote)  # over the connection that was there
    fresh = RemoteCaller(connect, [address], response_classes(SERVICE))
    await answered(fresh)
    # Those who know the new CA alone are served, and nobody else is any more.
    stranger = folder / "stranger"
    pki.initialise(stranger, DOMAIN, ["gateway"])
    (stranger / "ca.pem").write_bytes((new / "ca.pem").read_bytes())
    refused = Identities(stranger, DOMAIN, ["gateway"]).connector("gateway", "echo")(address)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await refused.channel_ready()
    await refused.close()
    await remote.close()
    await fresh.close()
    await server.stop()


async def test_a_link_that_breaks_comes_back_with_the_renewed_certificate(folder: Path) -> None:
    """The server trusts a new CA alone when it comes back: what the caller showed before is of no use there."""
    caller_side = Identities(folder, DOMAIN, ["gateway"])
    server = InternalServer(table(Echo()), Identities(folder, DOMAIN, ["echo"]), drain_seconds=1)
    port = await server.start("127.0.0.1:0")
    connect = caller_side.connector("gateway", "echo")
    remote = RemoteCaller(
        connect, [f"127.0.0.1:{port}"], response_classes(SERVICE), wait_seconds=20
    )
    await remote.call(ECHO, Text(value="1"), RequestContext("r"))
    await server.stop()
    new = folder / "new"
    pki.initialise(new, DOMAIN, ["gateway", "echo"])
    for file in new.glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    caller_side.look()
    again = InternalServer(table(Echo()), Identities(folder, DOMAIN, ["echo"]), drain_seconds=1)
    await again.start(f"127.0.0.1:{port}")
    answer = await remote.call(ECHO, Text(value="2"), RequestContext("r"))
    assert answer.value == "2"
    await remote.close()
    await again.stop()


def test_a_key_is_in_no_repr(folder: Path) -> None:
    texts = Renewable(Identity.of(folder, "echo")).current.texts
    assert "PRIVATE KEY" not in repr(texts)
    assert x509.load_pem_x509_certificate(texts.certificate)

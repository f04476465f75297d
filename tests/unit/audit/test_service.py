"""The audit service: chains are sealed and registered by themselves, keys replaced, and crashes leave no problem."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.waiting import until

from strongroom.audit.v1 import audit_pb2 as pb
from strongroom_audit.config import Config
from strongroom_audit.domain.evidence import Evidence, KnownChain, KnownKey
from strongroom_audit.domain.verification import Expectation, Report, Verifier
from strongroom_audit.keys import SigningKeys
from strongroom_audit.service import AuditService, build
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Host
from strongroom_runtime.storage import Plain, Transaction

ENTRY = b'{"time":"2023-11-14T22:13:20.000000Z","type":"request"}'
QUICK = {"seal_seconds": 0.01, "sync_seconds": 0.01, "record_seconds": 0.0, "ending_seconds": 1.0}


class Store(MemoryStore):
    """Can be away, with everything in it, or lose the answers to what it does."""

    away = False
    silent = False

    async def commit(self, transaction: Transaction) -> int:
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "away")
        revision = await super().commit(transaction)
        if self.silent:
            raise ServiceError(Kind.UNAVAILABLE, "the outcome is unknown")
        return revision


class Platform:
    """Processes of the service over one store, and their folder of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store()
        self.clock = ManualClock()

    def process(self, **config: Any) -> AuditService:
        settings = Config(folder=self.folder, **{**QUICK, **config})
        return build(Host(self.store, self.clock), settings)

    @asynccontextmanager
    async def running(self, **config: Any) -> AsyncIterator[AuditService]:
        service = self.process(**config)
        await service.start()
        yield service
        await service.stop()

    async def enable(self, service: AuditService, name: str = "file", **options: str) -> None:
        request = pb.EnableDeviceRequest(
            path=name, type="file", options={"file_path": f"{name}.log", **options}
        )
        await self.ask(service, "AuditService/EnableDevice", request)

    async def ask(self, service: AuditService, method: str, request: Any) -> Any:
        caller = LocalCaller(service.handlers)
        return await caller.call(f"/strongroom.audit.v1.{method}", request, RequestContext("id"))

    async def evidence(self, service: AuditService) -> Evidence:
        answer = await self.ask(service, "AuditChainService/ReadChains", pb.ReadChainsRequest())
        names = [field.name for field in pb.Chain.DESCRIPTOR.fields]
        return Evidence(
            keys=[
                KnownKey(k.public_key, k.number, k.since, k.issuer, k.signature)
                for k in answer.keys
            ],
            chains=[
                KnownChain(**{name: getattr(c, name) for name in names}) for c in answer.chains
            ],
            numbered=answer.numbered,
            time=answer.time,
        )

    def verify(self, *answers: Evidence) -> Report:
        verifier = Verifier(Expectation(answers=answers))
        for file in sorted(self.folder.iterdir()):
            verifier.read(file.name, file.read_bytes().splitlines(keepends=True))
        return verifier.report()


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.mark.parametrize(
    "name", ["", "\0", "a\nb", "../outside.log", "/tmp/outside.log", "x" * 5_000]
)
async def test_a_file_that_cannot_be_is_refused(platform: Platform, name: str) -> None:
    async with platform.running() as service:
        request = pb.EnableDeviceRequest(path="f", type="file", options={"file_path": name})
        with pytest.raises(ServiceError, match="file_path") as caught:
            await platform.ask(service, "AuditService/EnableDevice", request)
        assert caught.value.kind is Kind.INVALID
        assert list(platform.folder.iterdir()) == []


@pytest.mark.parametrize(("field", "most"), [("path", 512), ("description", 4_096)])
async def test_what_is_kept_of_a_device_is_bounded(
    platform: Platform, field: str, most: int
) -> None:
    async with platform.running() as service:
        given = {"path": "f", "type": "file", field: "x" * (most + 1)}
        request = pb.EnableDeviceRequest(**given, options={"file_path": "f.log"})  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match=f"{field}: may have at most {most} characters"):
            await platform.ask(service, "AuditService/EnableDevice", request)
        assert list(platform.folder.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"path": "given.log"},
        {"file_path": "given.log"},
        {"file_path": "./given.log", "sync": "always", "mode": "0600", "hmac_accessor": "false"},
    ],
)
async def test_options_are_shown_as_they_were_given(
    platform: Platform, options: dict[str, str]
) -> None:
    """Who compares them with what was asked for, as Terraform does, would else make the device anew each time."""
    async with platform.running() as service:
        request = pb.EnableDeviceRequest(path="given", type="file", options=options)
        await platform.ask(service, "AuditService/EnableDevice", request)
    async with platform.running() as service:
        listed = await platform.ask(service, "AuditService/ListDevices", pb.ListDevicesRequest())
        assert dict(listed.devices["given/"].options) == options
    assert (platform.folder / "given.log").exists()


async def test_a_name_alone_is_a_file_in_the_folder_of_each_process(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        request = pb.EnableDeviceRequest(
            path="fixed", type="file", options={"file_path": str(platform.folder / "fixed.log")}
        )
        await platform.ask(service, "AuditService/EnableDevice", request)
        listed = await platform.ask(service, "AuditService/ListDevices", pb.ListDevicesRequest())
        files = {path: device.options["file_path"] for path, device in listed.devices.items()}
        assert files == {"file/": "file.log", "fixed/": str(platform.folder / "fixed.log")}
    before, platform.folder = platform.folder, tmp_path_factory.mktemp("moved")
    async with platform.running() as service:
        await service.log.append([("file/", b'{"n":1}'), ("fixed/", b'{"n":2}')])
    assert b'"n":1' in (platform.folder / "file.log").read_bytes()
    assert not (before / "file.log").read_bytes()
    assert b'"n":2' in (before / "fixed.log").read_bytes()
    assert not (platform.folder / "fixed.log").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mode", "0777"),
        ("mode", "0644"),
        ("prefix", "#!/bin/sh\n"),
        ("log_raw", "true"),
        ("format", "jsonx"),
        ("plugin_dir", "/"),
    ],
)
async def test_a_client_decides_neither_rights_nor_what_else_is_in_a_file(
    platform: Platform, option: str, value: str
) -> None:
    options = {"file_path": "f.log", option: value}
    async with platform.running() as service:
        request = pb.EnableDeviceRequest(path="f", type="file", options=options)
        with pytest.raises(ServiceError, match="options") as caught:
            await platform.ask(service, "AuditService/EnableDevice", request)
        assert caught.value.kind is Kind.INVALID
        assert value.strip() not in caught.value.message.split(": ")[0]
        assert list(platform.folder.iterdir()) == []


async def test_the_log_says_once_why_a_device_takes_no_entries(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "strongroom_audit.log")
    file = platform.folder / "file.log"
    async with platform.running() as service:
        await platform.enable(service)
        file.unlink()
        file.symlink_to(platform.folder / "elsewhere.log")
        for _ in range(3):
            with pytest.raises(ServiceError):
                await service.log.append([("file/", ENTRY)])
        file.unlink()
        for _ in range(2):
            await service.log.append([("file/", ENTRY)])
    failing, again = [record for record in caplog.records if "takes" in record.message]
    assert vars(failing)["device"] == vars(again)["device"] == "file/"
    assert vars(failing)["file"] == str(file)
    assert "cannot be opened: Too many levels" in vars(failing)["reason"]
    assert (failing.levelname, again.message) == ("ERROR", "an audit device takes entries again")


async def recorded(platform: Platform, service: AuditService, count: int) -> Evidence:
    """Returns what the platform says once so many entries are recorded."""
    while True:
        evidence = await platform.evidence(service)
        if sum(chain.entries for chain in evidence.chains) >= count:
            return evidence
        await asyncio.sleep(0.005)


async def test_what_is_written_is_soon_sealed_and_recorded(platform: Platform) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        await service.log.append([("file/", ENTRY), ("file/", ENTRY)])
        evidence = await recorded(platform, service, 4)
        (chain,) = evidence.chains
        assert (chain.number, chain.device, chain.ended) == (1, "file/", False)
        assert chain.file == str(platform.folder / "file.log")
        report = platform.verify(evidence)
        assert (report.problems, report.chains[0].unsealed, report.chains[0].recorded) == ([], 0, 4)
    async with platform.running() as later:
        evidence = await platform.evidence(later)
        (chain,) = evidence.chains
        assert (chain.entries, chain.ended) == (5, True)
        assert platform.verify(evidence).problems == []


async def test_a_device_that_is_disabled_ends_its_chain(platform: Platform) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        await service.log.append([("file/", ENTRY)])
        await disable(platform, service)
        await until(lambda: b"chain-end" in (platform.folder / "file.log").read_bytes())
        evidence = await recorded(platform, service, 3)
        assert evidence.chains[0].ended
        assert platform.verify(evidence).problems == []


async def test_a_device_is_written_as_it_was_enabled_last(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with platform.running(sync_seconds=60.0) as service:
        await platform.enable(service)
        await service.log.append([("file/", ENTRY)])
        await disable(platform, service)
        await platform.enable(service, sync="always")

        def fails(descriptor: int) -> None:
            raise OSError(5, "no disk")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            with pytest.raises(ServiceError, match="no disk"):
                await service.log.append([("file/", ENTRY)])
        await service.log.append([("file/", ENTRY)])
    assert platform.verify().problems == []


async def disable(platform: Platform, service: AuditService) -> None:
    request = pb.DisableDeviceRequest(path="file")
    await platform.ask(service, "AuditService/DisableDevice", request)


async def test_each_process_has_a_chain_for_each_device(platform: Platform) -> None:
    async with platform.running() as one, platform.running() as other:
        for name in ("file", "second"):
            await platform.enable(one, name)
        for service in (one, other):
            await service.log.append([("file/", ENTRY), ("second/", ENTRY)])
        evidence = await recorded(platform, one, 12)
    assert sorted(chain.number for chain in evidence.chains) == [1, 2, 3, 4]
    report = platform.verify(evidence)
    assert (report.problems, len(report.chains)) == ([], 4)
    (platform.folder / "second.log").unlink()
    assert len(platform.verify(evidence).problems) == 2


async def test_a_killed_process_leaves_no_problem_and_what_it_wrote_is_missed(
    platform: Platform,
) -> None:
    killed = platform.process()
    await killed.start()
    await platform.enable(killed)
    await killed.log.append([("file/", ENTRY)])
    await recorded(platform, killed, 3)
    await killed._tasks.stop()
    await killed.log.append([("file/", ENTRY)])
    async with platform.running() as service:
        await service.log.append([("file/", ENTRY)])
        evidence = await recorded(platform, service, 6)
        report = platform.verify(evidence)
        assert report.problems == []
        # Nobody sealed what was written last but the next process.
        assert [chain.unsealed for chain in report.chains] == [0, 0]
    file = platform.folder / "file.log"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert "at the end, which file.log:" in str(platform.verify(evidence).problems[0])
    file.write_bytes(b"".join(lines[:2] + lines[4:]))
    assert "at the end, which were recorded" in str(platform.verify(evidence).problems[1])
    file.write_bytes(b"".join(lines[4:]))
    found = " ".join(map(str, platform.verify(evidence).problems))
    assert "entries 0 to 3 of" in found
    assert "is missing (device file/" in found


async def test_the_end_is_recorded_later_where_etcd_was_away(platform: Platform) -> None:
    service = platform.process()
    await service.start()
    await platform.enable(service)
    await service.log.append([("file/", ENTRY)])
    await recorded(platform, service, 3)
    platform.store.away = True
    await service.stop()
    assert not (await platform.evidence(service)).chains[0].ended
    platform.store.away = False
    await service.start()  # it was sealed, and is open again
    await recorded(platform, service, 4)
    evidence = await platform.evidence(service)
    assert [chain.ended for chain in evidence.chains] == [True]
    assert platform.verify(evidence).problems == []
    await service.stop()


async def test_a_record_whose_outcome_was_unknown_is_not_made_twice(platform: Platform) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        platform.store.silent = True
        await service.log.append([("file/", ENTRY)])
        await recorded(platform, service, 3)
        platform.store.silent = False
        await service.log.append([("file/", ENTRY)])
        evidence = await recorded(platform, service, 5)
        assert ([chain.number for chain in evidence.chains], evidence.numbered) == ([1], 1)


async def test_a_log_is_written_while_etcd_is_away(platform: Platform) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        platform.store.away = True
        for _ in range(3):
            await service.log.append([("file/", ENTRY)])
            await asyncio.sleep(0.03)
        platform.store.away = False
        evidence = await recorded(platform, service, 7)
        assert platform.verify(evidence).problems == []


async def test_files_that_are_moved_away_are_one_log(platform: Platform) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        for number in range(3):
            await service.log.append([("file/", ENTRY)])
            (platform.folder / "file.log").rename(platform.folder / f"file.log.{number}")
            await service.log.reopen()
        await service.log.append([("file/", ENTRY)])
        evidence = await recorded(platform, service, 12)
        assert len(evidence.chains) == 1
    assert platform.verify(evidence).problems == []
    (platform.folder / "file.log.1").unlink()
    assert "missing between file.log.0 and this" in str(platform.verify(evidence).problems[0])


async def test_a_key_is_replaced_when_it_was_used_for_a_day(platform: Platform) -> None:
    async with platform.running() as service:
        await platform.enable(service)
        await service.log.append([("file/", ENTRY)])
        await recorded(platform, service, 3)
        platform.clock.advance(90_000)
        first = service._keys.current.public
        await until(lambda: service._keys.current.public != first)
        await service.log.append([("file/", ENTRY)])
        evidence = await recorded(platform, service, 5)
    assert [key.number for key in evidence.keys] == [1, 2]
    assert platform.verify(evidence).problems == []
    verifier = Verifier(Expectation(anchors=[first]))
    file = platform.folder / "file.log"
    verifier.read("file.log", file.read_bytes().splitlines(keepends=True))
    report = verifier.report()
    assert (report.problems, list(report.keys.values())) == ([], [True, True])


async def test_keys_that_several_replace_at_once_make_one_line(platform: Platform) -> None:
    keys = [SigningKeys(platform.store, Config(Path()), platform.clock) for _ in range(4)]
    await asyncio.gather(*(each.refresh() for each in keys))
    assert len({each.current.public for each in keys}) == 1
    platform.clock.advance(90_000)
    await asyncio.gather(*(each.refresh() for each in keys))
    assert len({each.current.public for each in keys}) == 1
    await asyncio.gather(*(each.rotate() for each in keys))
    shown = await keys[0].public_keys()
    assert [key.certificate.number for key in shown] == [1, 2, 3, 4, 5, 6]
    issuers = [key.certificate.issuer for key in shown]
    assert issuers == ["", *(key.public for key in shown[:-1])]
    assert all(key.certificate.holds(key.public) for key in shown[1:])


async def test_the_private_half_of_a_key_goes_with_it(platform: Platform) -> None:
    keys = SigningKeys(platform.store, Config(Path()), platform.clock)
    await keys.refresh()
    entry = await platform.store.get((Plain("signing"),))
    assert entry is not None
    before = keys.current._private.private_bytes_raw()
    assert before in entry.value
    await keys.rotate()
    for entry in await platform.store.scan(()):
        assert before not in entry.value
    keys.forget()
    with pytest.raises(ServiceError, match="sealed"):
        _ = keys.current


@pytest.mark.parametrize("put_back", [True, False])
async def test_a_key_that_was_put_back_in_etcd_makes_no_other_past(
    platform: Platform, put_back: bool
) -> None:
    keys, path = SigningKeys(platform.store, Config(Path()), platform.clock), (Plain("signing"),)
    await keys.refresh()
    first = await platform.store.get(path)
    assert first is not None
    await keys.rotate()
    shown = await keys.public_keys()
    tampering = Transaction(puts={path: first.value}) if put_back else Transaction(deletes=[path])
    await platform.store.commit(tampering)
    with pytest.raises(ServiceError, match="put back or removed"):
        await keys.rotate()
    if not put_back:
        with pytest.raises(ServiceError, match="put back or removed"):
            await keys.refresh()
    assert await keys.public_keys() == shown


async def test_rotating_over_the_api_names_the_new_key(platform: Platform) -> None:
    async with platform.running() as service:
        before = service._keys.current.public
        answer = await platform.ask(service, "AuditChainService/RotateKey", pb.RotateKeyRequest())
        assert (answer.key.number, answer.key.issuer) == (2, before)
        assert [key.number for key in (await platform.evidence(service)).keys] == [1, 2]

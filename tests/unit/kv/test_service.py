"""The kv service through its handler table, as the gateway calls it."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from google.protobuf.message import Message
from tests.fakes.store import MemoryStore

from strongroom.kv.v1 import cubbyhole_pb2, kv1_pb2, kv2_pb2
from strongroom_kv.service import build
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Host
from strongroom_runtime.storage import Plain, Transaction

MOUNT = MountContext("secret/", "kv", "mount-1", "kv_1", {"version": "2"})
USUAL = 2_764_800  # seconds: 32 days
CONTEXT = RequestContext("r", mount=MOUNT, token=TokenContext("token-1", "accessor"))


class Kv:
    """Calls methods by name, with fields as keywords."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock()
        self.service = build(Host(self.store, self.clock))
        self._caller = LocalCaller(self.service.handlers)
        self.context = CONTEXT

    async def __call__(
        self, method: str, context: RequestContext | None = None, **fields: Any
    ) -> Any:
        name, request = self._asked(method, fields)
        return await self._caller.call(name, request, context or self.context)

    def stream(self, method: str, **fields: Any) -> AsyncGenerator[Any]:
        name, request = self._asked(method, fields)
        return self._caller.stream(name, request, self.context)

    def _asked(self, method: str, fields: dict[str, Any]) -> tuple[str, Message]:
        module, service = next(
            (m, s)
            for m in (kv2_pb2, kv1_pb2, cubbyhole_pb2)
            for s in m.DESCRIPTOR.services_by_name.values()
            if method in s.methods_by_name
        )
        request: type[Message] = getattr(module, f"{method}Request")
        return f"/{service.full_name}/{method}", request(**fields)

    async def put(self, path: str, document: Any, cas: int | None = None) -> int:
        options = kv2_pb2.WriteOptions(cas=cas) if cas is not None else None
        answer = await self(
            "WriteSecret", path=path, data=json.dumps(document).encode(), options=options
        )
        return int(answer.metadata.version)

    async def get(self, path: str, version: int = 0) -> Any:
        answer = await self("ReadSecret", path=path, version=version)
        return json.loads(answer.data)


@pytest.fixture
def kv() -> Kv:
    return Kv()


async def refused(call: Any, kind: Kind, message: str = "") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.kind is kind
    assert message in caught.value.message
    return caught.value


async def test_a_secret_comes_back_byte_for_byte_in_every_version(kv: Kv) -> None:
    first = b'{ "n": 18446744073709551617, "u":"\\u00fc" }'
    await kv("WriteSecret", path="app/db", data=first)
    await kv.put("app/db", {"b": 2})
    assert (await kv("ReadSecret", path="app/db", version=1)).data == first
    latest = await kv("ReadSecret", path="app/db")
    assert json.loads(latest.data) == {"b": 2}
    assert latest.metadata.version == 2
    assert latest.metadata.created_time.seconds == 1_700_000_000
    assert latest.metadata.custom_metadata == b"null"


async def test_what_does_not_exist_is_not_found(kv: Kv) -> None:
    await refused(kv.get("nothing"), Kind.NOT_FOUND)
    await kv.put("a", {})
    await refused(kv.get("a", 2), Kind.NOT_FOUND)
    await refused(kv("ReadMetadata", path="nothing"), Kind.NOT_FOUND)
    await refused(kv("ListSecrets", path="nothing"), Kind.NOT_FOUND)
    await refused(kv("PatchSecret", path="nothing", data=b"{}"), Kind.NOT_FOUND)
    for method in ("DeleteLatest", "DeleteMetadata"):
        await kv(method, path="nothing")


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"1", b"{"])
async def test_only_objects_are_written(kv: Kv, data: bytes) -> None:
    await refused(kv("WriteSecret", path="a", data=data), Kind.INVALID, "data")
    await refused(kv.get("a"), Kind.NOT_FOUND)


async def test_check_and_set(kv: Kv) -> None:
    wrong = "check-and-set parameter did not match the current version"
    await refused(kv.put("a", {}, cas=1), Kind.FAILED_PRECONDITION, wrong)
    assert await kv.put("a", {}, cas=0) == 1
    await refused(kv.put("a", {}, cas=0), Kind.FAILED_PRECONDITION, wrong)
    assert await kv.put("a", {}, cas=1) == 2
    await kv("WriteConfig", cas_required=True)
    required = "check-and-set parameter required for this call"
    await refused(kv.put("a", {}), Kind.FAILED_PRECONDITION, required)


async def test_of_many_writers_with_one_cas_one_wins(kv: Kv) -> None:
    async def attempt(number: int) -> bool:
        try:
            await kv.put("a", {"n": number}, cas=0)
        except ServiceError as error:
            assert error.kind is Kind.FAILED_PRECONDITION
            return False
        return True

    won = await asyncio.gather(*(attempt(n) for n in range(12)))
    assert sum(won) == 1
    assert await kv.get("a") == {"n": won.index(True)}


async def test_many_writers_without_cas_all_get_a_version(kv: Kv) -> None:
    await kv("WriteConfig", max_versions=100)
    versions = await asyncio.gather(*(kv.put("a", {"n": n}) for n in range(50)))
    assert sorted(versions) == list(range(1, 51))
    assert {(await kv.get("a", v))["n"] for v in versions} == set(range(50))


async def test_the_oldest_version_is_told_once_there_are_as_many_as_may_be(kv: Kv) -> None:
    async def oldest() -> int:
        return int((await kv("ReadMetadata", path="a")).metadata.oldest_version)

    await kv("WriteMetadata", path="a", max_versions=2)
    told = []
    for number in range(3):
        await kv.put("a", {"n": number})
        told.append(await oldest())
    assert told == [0, 1, 2]
    # It stays so when more may be kept.
    await kv.put("b", {})
    await kv("WriteMetadata", path="a", max_versions=5)
    await kv.put("a", {})
    assert await oldest() == 2


async def test_a_version_that_ends_in_no_year_that_has_a_name_can_be_read(kv: Kv) -> None:
    # Over HTTP spans are bounded; over gRPC they are what the field holds.
    await kv("WriteMetadata", path="a", delete_version_after=1 << 60)
    assert await kv.put("a", {"n": 1}) == 1
    assert await kv.get("a") == {"n": 1}
    (version,) = (await kv("ReadMetadata", path="a")).metadata.versions.values()
    assert version.deletion_time.seconds == 253_402_300_799


async def test_another_version_than_the_latest_is_not_deleted_in_its_place(kv: Kv) -> None:
    for number in range(2):
        await kv.put("a", {"n": number})
    call = kv("DeleteLatest", path="a", version=1)
    await refused(call, Kind.INVALID, "name others as versions")
    assert (await kv.get("a"), await kv.get("a", 1)) == ({"n": 1}, {"n": 0})


async def test_the_oldest_versions_make_room(kv: Kv) -> None:
    for number in range(12):
        await kv.put("a", {"n": number})
    metadata = (await kv("ReadMetadata", path="a")).metadata
    assert (metadata.oldest_version, metadata.current_version) == (3, 12)
    await refused(kv.get("a", 2), Kind.NOT_FOUND)
    kept = [e for e in await kv.store.scan(()) if str(e.path[0]) == "v"]
    assert len(kept) == 10


@pytest.mark.parametrize("how", ["destroyed", "pruned"])
async def test_nothing_is_left_of_versions_that_go_however_many(kv: Kv, how: str) -> None:
    await kv("WriteMetadata", path="a", max_versions=300)
    for number in range(260):
        await kv.put("a", {"n": number})
    if how == "destroyed":
        await kv("DestroyVersions", path="a", versions=range(1, 258))
        await refused(kv.get("a", 250), Kind.NOT_FOUND)
    else:
        await kv("WriteMetadata", path="a", max_versions=3)
        await kv.put("a", {"n": 260})
    documents = [e for e in await kv.store.scan(()) if str(e.path[0]) == "v"]
    assert len(documents) == 3
    assert await kv.get("a", 259) == {"n": 258}


async def test_deleted_versions_come_back_and_destroyed_ones_do_not(kv: Kv) -> None:
    for number in range(3):
        await kv.put("a", {"n": number})
    await kv("DeleteLatest", path="a")
    error = await refused(kv.get("a"), Kind.NOT_FOUND)
    shown = json.loads(error.data)
    assert shown["data"] is None
    assert shown["metadata"]["deletion_time"].startswith("2023-11-14T")
    assert await kv.get("a", 2) == {"n": 1}
    await kv("UndeleteVersions", path="a", versions=[3])
    assert await kv.get("a") == {"n": 2}
    await kv("DeleteVersions", path="a", versions=[1, 2])
    await kv("DestroyVersions", path="a", versions=[2, 3])
    await kv("UndeleteVersions", path="a", versions=[1, 2, 3])
    assert await kv.get("a", 1) == {"n": 0}
    error = await refused(kv.get("a", 2), Kind.NOT_FOUND)
    assert json.loads(error.data)["metadata"]["destroyed"] is True
    documents = [e for e in await kv.store.scan(()) if str(e.path[0]) == "v"]
    assert len(documents) == 1
    await refused(kv("DestroyVersions", path="a"), Kind.INVALID, "No version number")


async def test_versions_delete_themselves(kv: Kv) -> None:
    await kv("WriteConfig", delete_version_after=60)
    await kv.put("a", {"n": 1})
    kv.clock.advance(59)
    assert await kv.get("a") == {"n": 1}
    kv.clock.advance(2)
    await refused(kv.get("a"), Kind.NOT_FOUND)
    assert (await kv("ReadConfig")).delete_version_after == 60


async def test_what_is_undeleted_deletes_itself_again(kv: Kv) -> None:
    await kv("WriteConfig", delete_version_after=60)
    await kv.put("a", {"n": 1})
    kv.clock.advance(61)
    await refused(kv.get("a"), Kind.NOT_FOUND)
    await kv("UndeleteVersions", path="a", versions=[1])
    kv.clock.advance(59)
    assert await kv.get("a") == {"n": 1}
    kv.clock.advance(2)
    await refused(kv.get("a"), Kind.NOT_FOUND)


async def test_a_mount_can_switch_off_that_versions_delete_themselves(kv: Kv) -> None:
    await kv("WriteMetadata", path="a", delete_version_after=60)
    await kv("WriteConfig", delete_version_after=-7)
    assert (await kv("ReadConfig")).delete_version_after == -1
    await kv.put("a", {"n": 1})
    await kv("WriteConfig", delete_version_after=0)
    kv.clock.advance(100)
    assert await kv.get("a") == {"n": 1}
    await kv.put("a", {"n": 2})
    kv.clock.advance(61)
    await refused(kv.get("a"), Kind.NOT_FOUND)


async def test_a_patch_changes_what_it_names(kv: Kv) -> None:
    await kv("WriteSecret", path="a", data=b'{"keep":1e400,"drop":1,"deep":{"a":1,"b":2}}')
    await kv("PatchSecret", path="a", data=b'{"drop":null,"deep":{"a":null},"new":[1]}')
    answer = await kv("ReadSecret", path="a")
    assert answer.data == b'{"keep":1e400,"deep":{"b":2},"new":[1]}'
    options = kv2_pb2.WriteOptions(cas=1)
    await refused(
        kv("PatchSecret", path="a", data=b"{}", options=options), Kind.FAILED_PRECONDITION
    )
    await kv("DeleteLatest", path="a")
    await refused(kv("PatchSecret", path="a", data=b"{}"), Kind.NOT_FOUND)
    none = kv("PatchSecret", path="none", data=b"{}", options=options)
    await refused(none, Kind.NOT_FOUND)


async def test_custom_metadata(kv: Kv) -> None:
    await kv("WriteMetadata", path="a", custom_metadata=b'{"owner":"ann","team":"x"}')
    await kv.put("a", {})
    assert json.loads((await kv("ReadSecret", path="a")).metadata.custom_metadata) == {
        "owner": "ann",
        "team": "x",
    }
    await kv("PatchMetadata", path="a", custom_metadata=b'{"team":null,"new":"y"}', max_versions=3)
    metadata = (await kv("ReadMetadata", path="a")).metadata
    assert json.loads(metadata.custom_metadata) == {"owner": "ann", "new": "y"}
    assert (metadata.max_versions, metadata.current_version) == (3, 1)
    await kv("PatchMetadata", path="a", custom_metadata=b"null")
    assert (await kv("ReadMetadata", path="a")).metadata.custom_metadata == b"null"
    await refused(kv("PatchMetadata", path="none"), Kind.NOT_FOUND)


async def settings(kv: Kv, path: str) -> tuple[int, int, bool]:
    found = (await kv("ReadMetadata", path=path)).metadata
    return found.max_versions, found.current_metadata_version, found.metadata_cas_required


async def test_metadata_is_written_for_a_version_of_it(kv: Kv) -> None:
    failed = Kind.FAILED_PRECONDITION
    await refused(
        kv("WriteMetadata", path="a", max_versions=1, metadata_cas=5), failed, "must be 0"
    )
    await kv("WriteMetadata", path="a", metadata_cas=0)  # nothing to write
    await refused(kv("ReadMetadata", path="a"), Kind.NOT_FOUND)
    await kv("WriteMetadata", path="a", max_versions=1, metadata_cas=0)
    assert await settings(kv, "a") == (1, 1, False)
    for method in ("WriteMetadata", "PatchMetadata"):
        call = kv(method, path="a", max_versions=9, metadata_cas=0)
        await refused(call, failed, "does not match the current version")
    await kv("WriteMetadata", path="a", max_versions=2)  # nobody asked for a check
    await kv("WriteMetadata", path="a", metadata_cas_required=True, metadata_cas=2)
    await kv.put("a", {})  # writes of data do not count
    assert await settings(kv, "a") == (2, 3, True)
    for method in ("WriteMetadata", "PatchMetadata"):
        await refused(kv(method, path="a", max_versions=9), failed, "required for this call")
    await kv("PatchMetadata", path="a", max_versions=4, metadata_cas=3)
    assert await settings(kv, "a") == (4, 4, True)
    await kv.put("b", {})
    assert await settings(kv, "b") == (0, 0, False)
    await kv("PatchMetadata", path="b", max_versions=4, metadata_cas=0)
    assert await settings(kv, "b") == (4, 1, False)


async def test_a_mount_asks_for_versions_of_metadata(kv: Kv) -> None:
    await kv("WriteConfig", metadata_cas_required=True, cas_required=True)
    config = await kv("ReadConfig")
    assert (config.metadata_cas_required, config.cas_required) == (True, True)
    failed = Kind.FAILED_PRECONDITION
    await refused(kv("WriteMetadata", path="a", max_versions=1), failed, "required for this call")
    off: dict[str, Any] = {"cas_required": False, "metadata_cas_required": False}
    ignored = await kv("WriteMetadata", path="a", metadata_cas=0, **off)
    assert [text.split()[0] for text in ignored.warnings] == [
        '"cas_required"',
        '"metadata_cas_required"',
    ]
    assert not (await kv("PatchMetadata", path="a", metadata_cas=1, max_versions=2)).warnings
    await refused(kv("PatchMetadata", path="a", max_versions=3), failed, "required for this call")
    await kv("WriteConfig", metadata_cas_required=False)
    await kv("PatchMetadata", path="a", max_versions=3)
    assert await settings(kv, "a") == (3, 3, False)


async def test_of_writers_of_one_version_of_metadata_one_wins(kv: Kv) -> None:
    await kv.put("a", {})
    calls = [kv("PatchMetadata", path="a", max_versions=n, metadata_cas=0) for n in range(1, 9)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    winners = [n for n, r in enumerate(results, 1) if not isinstance(r, BaseException)]
    assert len(winners) == 1
    assert await settings(kv, "a") == (winners[0], 1, False)


@pytest.mark.parametrize(
    "custom",
    [
        json.dumps({str(n): "x" for n in range(65)}),
        json.dumps({"k" * 129: "x"}),
        json.dumps({"k": "x" * 513}),
        '{"k": [1]}',
        "[]",
        '{"k": "\\u0000"}',
    ],
)
async def test_custom_metadata_has_limits(kv: Kv, custom: str) -> None:
    await refused(
        kv("WriteMetadata", path="a", custom_metadata=custom.encode()),
        Kind.INVALID,
        "custom_metadata",
    )


async def test_lists_folders_and_pages(kv: Kv) -> None:
    for path in ("a", "a/b", "a/c/d", "e", "ü"):
        await kv.put(path, {})
    assert list((await kv("ListSecrets")).keys) == ["a", "a/", "e", "ü"]
    assert list((await kv("ListSecrets", path="a/")).keys) == ["b", "c/"]
    assert list((await kv("ListSecrets", after="a", limit=2)).keys) == ["a/", "e"]
    assert list((await kv("ScanSecrets")).keys) == ["a", "a/b", "a/c/d", "e", "ü"]
    assert list((await kv("ScanSecrets", path="a")).keys) == ["b", "c/d"]
    detailed = await kv("ListDetailed", path="a")
    assert list(detailed.keys) == ["b", "c/"]
    assert detailed.key_info["b"].current_version == 1
    assert detailed.key_info["c/"].current_version == 0
    scanned = await kv("ScanDetailed", after="a/b", limit=2)
    assert list(scanned.keys) == ["a/c/d", "e"]
    assert set(scanned.key_info) == {"a/c/d", "e"}


async def test_a_secret_and_the_folder_of_its_name_do_not_touch(kv: Kv) -> None:
    await kv.put("a", {"n": "secret"})
    await kv.put("a/0000000001", {"n": "inside"})
    await kv("DeleteMetadata", path="a")
    assert await kv.get("a/0000000001") == {"n": "inside"}


async def test_subkeys_show_the_shape_alone(kv: Kv) -> None:
    await kv.put("a", {"x": {"y": {"z": 1}, "l": [1]}, "e": {}, "s": "secret"})
    answer = await kv("ReadSubkeys", path="a")
    assert json.loads(answer.subkeys) == {"x": {"y": {"z": None}, "l": None}, "e": None, "s": None}
    answer = await kv("ReadSubkeys", path="a", depth=1)
    assert json.loads(answer.subkeys) == {"x": None, "e": None, "s": None}


async def test_create_and_update_are_rights_of_their_own(kv: Kv) -> None:
    creator = msgspec.structs.replace(CONTEXT, may_update=False)
    updater = msgspec.structs.replace(CONTEXT, may_create=False)
    for method, fields in (
        ("WriteSecret", {"path": "a", "data": b"{}"}),
        ("WriteMetadata", {"path": "m", "max_versions": 3}),
        ("WriteCubbyhole", {"path": "c", "data": b'{"x":1}'}),
    ):
        await refused(kv(method, updater, **fields), Kind.DENIED)
        await kv(method, creator, **fields)
        await refused(kv(method, creator, **fields), Kind.DENIED)
        await kv(method, updater, **fields)


@pytest.mark.parametrize(
    ("document", "seconds"),
    [
        (b'{"ttl":"1h"}', 3600), (b'{"ttl":90}', 90), (b'{"ttl":"90"}', 90), (b'{"lease":"1h"}', 3600),
        (b'{"ttl":"100ms"}', 0), (b'{"ttl":"1900ms"}', 1), (b'{"ttl":""}', 0), (b'{"ttl":null}', 0),
        (b'{"ttl":"","lease":"1h"}', 0), (b'{"ttl":"junk"}', USUAL), (b'{"ttl":"junk","lease":"1h"}', USUAL),
        (b'{"ttl":1.9}', USUAL), (b'{"ttl":[]}', USUAL), (b'{"ttl":true}', USUAL), (b'{"TTL":"1h"}', USUAL),
    ],
)  # fmt: skip
async def test_how_long_unversioned_secrets_say_they_hold(
    kv: Kv, document: bytes, seconds: int
) -> None:
    await kv("WriteValue", path="app", data=document)
    assert (await kv("ReadValue", path="app")).lease_duration == seconds


async def test_unversioned_secrets(kv: Kv) -> None:
    await kv("WriteValue", path="app", data=b'{"k":"v","ttl":"1h"}')
    answer = await kv("ReadValue", path="app")
    assert (answer.data, answer.lease_duration) == (b'{"k":"v","ttl":"1h"}', 3600)
    await kv("WriteValue", path="app", data=b'{"k":2}')
    answer = await kv("ReadValue", path="app")
    assert (answer.data, answer.lease_duration) == (b'{"k":2}', USUAL)
    await kv("WriteValue", path="app/deep", data=b'{"k":2}')
    assert list((await kv("ListValues")).keys) == ["app", "app/"]
    assert list((await kv("ScanValues")).keys) == ["app", "app/deep"]
    await kv("DeleteValue", path="app")
    await refused(kv("ReadValue", path="app"), Kind.NOT_FOUND)
    await refused(kv("WriteValue", path="app", data=b"{}"), Kind.INVALID, "missing data")


async def test_an_upgraded_mount_shows_its_secrets_as_version_one(kv: Kv) -> None:
    await kv("WriteValue", path="app", data=b'{"k":1}')
    await kv("WriteValue", path="app", data=b'{"k":2}')
    assert await kv.get("app") == {"k": 2}
    assert await kv.put("app", {"k": 3}, cas=1) == 2
    assert await kv.get("app", 1) == {"k": 2}


async def test_a_write_from_before_an_upgrade_takes_no_version_back(kv: Kv) -> None:
    await kv("WriteValue", path="app", data=b'{"n":1}')
    assert await kv.put("app", {"n": 2}) == 2
    for late in (kv("WriteValue", path="app", data=b'{"n":3}'), kv("DeleteValue", path="app")):
        await refused(late, Kind.CONFLICT, "version 2")
    assert (await kv.get("app"), await kv.get("app", 1)) == ({"n": 2}, {"n": 1})


async def test_a_cubbyhole_belongs_to_one_token_and_goes_with_it(kv: Kv) -> None:
    other = msgspec.structs.replace(CONTEXT, token=TokenContext("token-2", "b"))
    await kv("WriteCubbyhole", path="a/b", data=b'{"x":1}')
    assert (await kv("ReadCubbyhole", path="a/b")).data == b'{"x":1}'
    assert list((await kv("ListCubbyhole")).keys) == ["a/"]
    await refused(kv("ReadCubbyhole", other, path="a/b"), Kind.NOT_FOUND)
    await kv("WriteCubbyhole", other, path="mine", data=b'{"x":2}')
    await kv("DropTokenData", token_id="token-1")
    await refused(kv("ReadCubbyhole", path="a/b"), Kind.NOT_FOUND)
    assert (await kv("ReadCubbyhole", other, path="mine")).data == b'{"x":2}'
    await kv("DeleteCubbyhole", other, path="mine")
    assert await kv.store.scan(()) == []
    await refused(
        kv("ReadCubbyhole", msgspec.structs.replace(CONTEXT, token=None), path="a"),
        Kind.INVALID,
        "token",
    )


async def test_tokens_with_something_in_their_cubbyholes_are_told(kv: Kv) -> None:
    ids = [f"{number:03}" for number in range(150)]
    for token_id in ids:
        token = TokenContext(token_id, "accessor")
        context = msgspec.structs.replace(CONTEXT, token=token)
        await kv("WriteCubbyhole", context, path="a/b", data=b'{"x":1}')
    await kv.put("s", {})
    told: list[str] = []
    while page := (await kv("ListTokensWithData", after=told[-1] if told else "")).token_ids:
        told += page
    assert told == ids


async def test_a_dropped_mount_leaves_nothing_behind(kv: Kv) -> None:
    other = msgspec.structs.replace(CONTEXT, mount=replace(MOUNT, uuid="mount-2"))
    await kv("WriteConfig", max_versions=3)
    for number in range(250):
        await kv.put(f"s/{number}", {})
    await kv("WriteSecret", other, path="mine", data=b"{}")
    await kv("DropMount", mount_uuid="mount-1")
    marks = await kv.store.scan((Plain("gone"),))
    assert [each.path[1] for each in marks] == ["mount-1"]
    await forgotten(kv)
    assert {str(e.path[1]) for e in await kv.store.scan(())} == {"mount-2"}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("WriteSecret", {"path": "late", "data": b"{}"}),
        ("WriteValue", {"path": "late", "data": b'{"a":1}'}),
        ("WriteMetadata", {"path": "late", "max_versions": 3}),
        ("WriteConfig", {"max_versions": 3}),
    ],
)
async def test_a_write_that_was_under_way_when_its_mount_was_disabled_leaves_nothing_behind(
    kv: Kv, method: str, fields: dict[str, Any], there: bool
) -> None:
    if there:
        await kv(method, **fields)
    commit = kv.store.commit

    async def late(transaction: Transaction) -> int:
        kv.store.commit = commit  # type: ignore[method-assign]
        await kv("DropMount", mount_uuid="mount-1")
        return await commit(transaction)

    kv.store.commit = late  # type: ignore[method-assign]
    await refused(kv(method, **fields), Kind.NOT_FOUND, "the mount was disabled")
    await forgotten(kv)
    assert await kv.store.scan(()) == []


async def forgotten(kv: Kv) -> None:
    """Lets the time pass after which nobody remembers that a mount was disabled."""
    await kv.service.marks.once()
    kv.clock.advance(86_400)
    await kv.service.marks.once()


async def test_an_interrupted_write_leaves_all_or_nothing(kv: Kv) -> None:
    await kv.put("a", {"n": 1})
    for steps in range(6):
        task = asyncio.create_task(kv.put("a", {"n": 2}))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        metadata = (await kv("ReadMetadata", path="a")).metadata
        for version in metadata.versions:
            await kv.get("a", int(version))


async def test_who_watches_is_told_up_to_when_nothing_changed(kv: Kv) -> None:
    messages = kv.stream("WatchSecrets", path="folder")
    begun = await anext(messages)
    assert (list(begun.changes), begun.revision) == ([], kv.store.current)
    await kv.put("elsewhere", {})
    kv.store.notice()
    told = await anext(messages)
    assert (list(told.changes), told.revision) == ([], kv.store.current)
    await kv.put("folder/a", {})
    changed = await anext(messages)
    assert ([each.path for each in changed.changes], changed.revision) == (
        ["folder/a"],
        kv.store.current,
    )
    await messages.aclose()


async def test_a_failing_store_changes_nothing(kv: Kv) -> None:
    await kv.put("a", {"n": 1})
    kv.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "etcd did not answer")
    await refused(kv.put("a", {"n": 2}), Kind.UNAVAILABLE)
    assert await kv.get("a") == {"n": 1}


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("PatchSecret", {"data": b'{"n": 2, "m": 3}'}),
        ("PatchMetadata", {"max_versions": 1, "custom_metadata": b'{"who": "me"}'}),
        ("WriteMetadata", {"max_versions": 1, "custom_metadata": b'{"who": "me"}'}),
        ("DeleteLatest", {}),
        ("DestroyVersions", {"versions": [1]}),
    ],
)
async def test_what_is_kept_in_memory_is_not_altered_by_who_reads_it_to_change_it(
    kv: Kv, method: str, fields: dict[str, Any]
) -> None:
    await kv.put("a", {"n": 1})
    reads: tuple[tuple[str, dict[str, Any]], ...] = (
        ("ReadSecret", {}),
        ("ReadSecret", {"version": 1}),
        ("ReadMetadata", {}),
    )
    before = [(await kv(read, path="a", **more)).SerializeToString() for read, more in reads]
    # It is read, and changed, and then not stored.
    kv.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "etcd did not answer")
    await refused(kv(method, path="a", **fields), Kind.UNAVAILABLE)
    after = [(await kv(read, path="a", **more)).SerializeToString() for read, more in reads]
    assert after == before


async def test_a_document_that_is_too_large_names_the_limit(kv: Kv) -> None:
    await refused(kv.put("a", {"x": "y" * (1 << 20)}), Kind.TOO_LARGE, "1048576")


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("ReadSecret", {"path": "a", "version": -1}, "version"),
        ("ReadSecret", {"path": "/"}, "path"),
        ("DeleteVersions", {"path": "a", "versions": [0]}, "versions"),
        ("WriteConfig", {"max_versions": -1}, "max_versions"),
        ("WriteMetadata", {"path": "a", "delete_version_after": -1}, "delete_version_after"),
        ("ReadSubkeys", {"path": "a", "depth": -1}, "depth"),
        ("DropMount", {}, "mount_uuid"),
    ],
)
async def test_bad_input_is_named(
    kv: Kv, method: str, fields: dict[str, Any], message: str
) -> None:
    await refused(kv(method, **fields), Kind.INVALID, message)

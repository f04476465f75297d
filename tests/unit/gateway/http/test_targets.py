"""Where paths lead, remembered only for as long as the mounts stay as they are."""

import pytest
from tests.fakes.store import MemoryStore

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.public import public_services
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.http.targets import Target, Targets
from strongroom_gateway.mounts.table import REMOVING, MountTable, new_mount
from strongroom_runtime.errors import Kind, ServiceError

READ, LIST = options.OPERATION_READ, options.OPERATION_LIST
DELETE = options.OPERATION_DELETE
UPDATE = options.OPERATION_UPDATE


@pytest.fixture
def mounts() -> MountTable:
    return MountTable(MemoryStore())


@pytest.fixture
def targets(mounts: MountTable) -> Targets:
    return Targets(RouteTable(public_services()), mounts)


async def find(targets: Targets, path: str, operation: int = READ) -> Target:
    return await targets.of(path, operation, helps=False)


async def test_a_path_follows_its_mount(targets: Targets, mounts: MountTable) -> None:
    before = await find(targets, "/v1/secret/data/app")
    assert (before.spec, before.capability) == (None, "read")
    assert before.missing is not None
    mount = new_mount("secret/", "kv", options={"version": "2"})
    await mounts.change(lambda known: {**known, "secret/": mount})
    after = await find(targets, "/v1/secret/data/app")
    assert after.spec is not None
    assert after.spec.name == "/strongroom.kv.v1.KvV2Service/ReadSecret"
    assert (after.captures, after.path) == ({"path": "app"}, "secret/data/app")
    assert await find(targets, "/v1/secret/data/app") is after
    await mounts.change(
        lambda known: {**known, "secret/": new_mount("secret/", "kv", state=REMOVING)}
    )
    assert (await find(targets, "/v1/secret/data/app")).spec is None


async def test_long_paths_that_anybody_can_name_are_not_remembered(targets: Targets) -> None:
    for length, kept in ((1_000, True), (10_000, False)):
        path = "/v1/" + "x" * (length - 4)
        first = await find(targets, path)
        assert (await find(targets, path) is first) == kept


async def test_a_list_ends_with_a_slash(targets: Targets, mounts: MountTable) -> None:
    mount = new_mount("secret/", "kv", options={"version": "2"})
    await mounts.change(lambda known: {**known, "secret/": mount})
    found = await find(targets, "/v1/secret/metadata/app", LIST)
    assert (found.path, found.capability) == ("secret/metadata/app/", "list")


async def test_what_works_sealed_rests_on_no_mounts(targets: Targets) -> None:
    assert (await find(targets, "/v1/sys/health")).snapshot is None


async def test_a_forgotten_data_gets_a_hint(targets: Targets, mounts: MountTable) -> None:
    mount = new_mount("secret/", "kv", options={"version": "2"})
    await mounts.change(lambda known: {**known, "secret/": mount})
    for operation, path, command in (
        (READ, "app", "get"),
        (LIST, "app", "list"),
        (LIST, "config", "list"),  # as in OpenBao: it is no folder
        (UPDATE, "app", "put"),
    ):
        missing = (await find(targets, f"/v1/secret/{path}", operation)).missing
        assert missing is not None
        assert missing.kind is Kind.NOT_FOUND
        assert f"use 'bao kv {command}'" in missing.warnings[0]
    unsupported = (await find(targets, "/v1/secret/config", DELETE)).missing
    assert unsupported is not None
    assert unsupported.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize(("operation", "what"), [(UPDATE, "write to"), (DELETE, "delete")])
async def test_no_folder_is_changed(
    targets: Targets, mounts: MountTable, operation: int, what: str
) -> None:
    mount = new_mount("secret/", "kv")
    await mounts.change(lambda known: {**known, "secret/": mount})
    with pytest.raises(ServiceError, match=f"cannot {what} a path ending in '/'"):
        await find(targets, "/v1/secret/app/", operation)
    assert (await find(targets, "/v1/secret/app/", READ)).spec is not None
    assert (await find(targets, "/v1/sys/mounts/new/", operation)).spec is not None


async def test_paths_that_mean_two_things_are_refused(targets: Targets) -> None:
    for path, kind in (("/v1/secret/../sys/seal", Kind.INVALID), ("/other", Kind.NOT_FOUND)):
        for _ in range(2):
            with pytest.raises(ServiceError) as refused:
                await find(targets, path)
            assert refused.value.kind is kind


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys/storage/raft/snapshot", "unsupported path: raft storage is not in use"),
        ("sys/namespaces", "unsupported path: namespaces are not supported"),
        (
            "identity/mfa/x",
            'no handler for route "identity/mfa/x". route entry not found: MFA for logins',
        ),
        (
            "identity/entity",
            'no handler for route "identity/entity". route entry not found: identity',
        ),
    ],
)
async def test_what_vault_has_and_this_does_not_is_named(
    targets: Targets, path: str, text: str
) -> None:
    missing = (await find(targets, f"/v1/{path}")).missing
    assert missing is not None
    assert (missing.kind, missing.message[: len(text)]) == (Kind.NOT_FOUND, text)


async def test_a_mount_may_have_any_name(targets: Targets, mounts: MountTable) -> None:
    await mounts.change(lambda known: {**known, "identity/": new_mount("identity/", "kv")})
    assert (await find(targets, "/v1/identity/entity")).spec is not None
    assert (await find(targets, "/v1/identities/x")).missing is not None

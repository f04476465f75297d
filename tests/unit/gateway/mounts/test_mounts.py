"""Which mounts may be made and removed by which requests, and what clients are told of those that are not there."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import gate_pb2, login_pb2
from strongroom.kv.v1 import cubbyhole_pb2
from strongroom.sys.v1 import mounts_pb2
from strongroom_gateway.mounts.rpc import MountHandlers
from strongroom_gateway.mounts.table import ACTIVE, MountTable
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.policy import Acl, parse_policy


class Engines:
    """Stands in for the services, which remove what mounts leave."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.uuids: list[str] = []  # of the mounts
        self.moved: list[str] = []
        self.away = False

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "away")
        if isinstance(request, gate_pb2.EndMovedTokensRequest):
            self.moved.append(request.path)
            return gate_pb2.EndMovedTokensResponse()
        self.dropped.append(method)
        self.uuids.append(request.mount_uuid)
        if isinstance(request, gate_pb2.DropMountRequest):
            return gate_pb2.DropMountResponse()
        return cubbyhole_pb2.DropMountResponse()


class Mounts:
    """The handlers, called as by a root token."""

    def __init__(self) -> None:
        self.engines = Engines()
        services = dict.fromkeys(("auth", "kv"), self.engines)
        self.table = MountTable(MemoryStore())
        self.handlers = MountHandlers(self.table, services, self._acl)
        self.stranger = False

    async def _acl(self, context: RequestContext) -> Acl | None:
        if self.stranger:
            return None
        return Acl.compile(
            [parse_policy("root", 'path "*" { capabilities = ["read"] }').render({})], 0
        )

    async def __call__(self, method: str, **fields: Any) -> Any:
        request: type[Message] = getattr(mounts_pb2, f"{method}Request")
        return await getattr(self.handlers, method)(request(**fields), RequestContext("r"))


@pytest.fixture
async def mounts() -> Mounts:
    mounts = Mounts()
    await mounts("EnableAuth", path="people", type="userpass")
    await mounts("EnableMount", path="secret", type="kv")
    return mounts


async def test_what_was_asked_for_is_shown_though_it_does_nothing(mounts: Mounts) -> None:
    """Who compares it with what is there, as Terraform does, would else mount it anew each time."""
    asked = {"local": True, "seal_wrap": True, "external_entropy_access": True}
    await mounts("EnableMount", path="asked", type="kv", **asked)
    await mounts("EnableAuth", path="asked", type="userpass", **asked)
    for answer in (
        await mounts("ReadMount", path="asked"),
        await mounts("ReadAuth", path="asked"),
    ):
        assert {name: getattr(answer.mount, name) for name in asked} == asked


async def refused(call: Any, text: str, kind: Kind = Kind.INVALID) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert (caught.value.kind, text in caught.value.message) == (kind, True), caught.value.message


@pytest.mark.parametrize("path", ["audit", "auth", "auth/x", "sys/x", "identity", "cubbyhole/x"])
async def test_secret_engines_stay_out_of_what_is_the_platforms(mounts: Mounts, path: str) -> None:
    await refused(mounts("EnableMount", path=path, type="kv"), f'cannot mount "{path}/"')


LONG = "x" * 513


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"description": "x" * 4_097}, "description: may have at most 4096 characters"),
        ({"options": {"a": LONG}}, "options: may have at most 512 characters"),
        ({"options": {LONG: "a"}}, "options: may have at most 512 characters"),
        ({"options": {str(n): "a" for n in range(257)}}, "options: at most"),
        (
            {"config": {"audit_non_hmac_request_keys": {"values": [LONG]}}},
            "audit_non_hmac_request_keys: may have at most 512 characters",
        ),
        (
            {"config": {"passthrough_request_headers": {"values": ["x"] * 257}}},
            "passthrough_request_headers: at most 256 may be given",
        ),
    ],
)
async def test_what_is_kept_of_a_mount_is_bounded(
    mounts: Mounts, fields: dict[str, Any], said: str
) -> None:
    """All are one record: what one takes, others have not."""
    before = (await mounts.table.current()).mounts
    await refused(mounts("EnableMount", path="new", type="kv", **fields), said)
    await refused(mounts("EnableAuth", path="new", type="userpass", **fields), said)
    await refused(mounts("TuneMount", path="secret", **fields), said)
    await refused(mounts("TuneAuth", path="people", **fields), said)
    assert (await mounts.table.current()).mounts == before


async def test_a_path_of_a_mount_is_bounded(mounts: Mounts) -> None:
    said = "path: may have at most 512 characters"
    await refused(mounts("EnableMount", path=LONG, type="kv"), said)
    await refused(mounts("EnableAuth", path=LONG, type="userpass"), said)
    await refused(mounts("Remount", **{"from": "secret", "to": LONG}), said)


async def test_a_login_method_is_disabled_by_its_own_path_alone(mounts: Mounts) -> None:
    # sys/mounts asks for no sudo, sys/auth does.
    await refused(mounts("DisableMount", path="auth/people"), 'cannot unmount "auth/people/"')
    assert mounts.engines.dropped == []
    await mounts("DisableAuth", path="people")
    assert len(mounts.engines.dropped) == 1
    await mounts("DisableAuth", path="people")


async def test_a_mount_that_comes_after_one_that_goes_is_not_taken_for_it(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await mounts.table.current()).mounts["secret/"]
    change, left = mounts.table.change, ["DisableMount", "EnableMount"]

    async def slow(decide: Callable[[Any], Any]) -> None:
        await change(decide)
        if len(left) == 2:  # meanwhile, through another gateway
            await mounts(left.pop(0), path="secret")
            await mounts(left.pop(), path="secret", type="kv")

    monkeypatch.setattr(mounts.table, "change", slow)
    await mounts("DisableMount", path="secret")
    after = (await mounts.table.current()).mounts["secret/"]
    assert (after.state, after.uuid != before.uuid) == (ACTIVE, True)
    assert set(mounts.engines.uuids) == {before.uuid}


async def test_clients_tell_by_these_texts_that_a_mount_is_gone(mounts: Mounts) -> None:
    for method, path, text in (
        ("ReadMount", "nope", "No secret engine mount at nope/"),
        ("ReadAuth", "nope", "No auth engine at nope/"),
        ("ReadMountTuning", "nope", 'cannot fetch sysview for path "nope/"'),
        ("ReadAuthTuning", "nope", 'cannot fetch sysview for path "auth/nope/"'),
        ("TuneMount", "nope", 'tune of path "nope/" failed: no mount entry found'),
    ):
        await refused(mounts(method, path=path), text)
    await refused(mounts("Remount", **{"from": "nope", "to": "x"}), 'no matching mount at "nope/"')
    await refused(mounts("Remount", **{"from": "secret"}), "both 'from' and 'to'")
    same = mounts("Remount", **{"from": "secret", "to": "secret/"})
    await refused(same, 'path already in use at "secret/"')
    await refused(
        mounts("Remount", **{"from": "secret", "to": "auth/x"}), "cannot remount to destination"
    )
    await refused(
        mounts("ReadUiMount", path="nope"), 'grant access to path "nope/"', kind=Kind.DENIED
    )


async def test_a_mount_is_shown_with_the_options_that_it_was_given(mounts: Mounts) -> None:
    # Tools that compare it with what they asked for would else see a change each time.
    assert dict((await mounts("ReadMount", path="secret")).mount.options) == {}
    found = (await mounts.table.current()).find("secret/x")
    assert found is not None
    assert found[0].kind == ("kv", "1")
    # Clients that ask for an upgrade wait for this answer, which has a body.
    tuned = await mounts("TuneMount", path="secret", options={"version": "2"})
    assert list(tuned.warnings) == ["The mount was upgraded from version 1 to version 2."]
    tuned = await mounts("TuneMount", path="secret", options={"version": "2"})
    assert list(tuned.warnings) == []
    assert dict((await mounts("ReadMount", path="secret")).mount.options) == {"version": "2"}


async def test_a_login_method_is_shown_below_auth(mounts: Mounts) -> None:
    assert (await mounts("ReadUiMount", path="auth/people/login/ann")).path == "people/"
    assert (await mounts("ReadUiMount", path="secret/app")).path == "secret/"


async def test_strangers_see_no_more_of_a_listed_mount_than_they_need(mounts: Mounts) -> None:
    config = {
        "listing_visibility": "unauth",
        "audit_non_hmac_request_keys": login_pb2.TextList(values=["k"]),
    }
    for kind in ("Auth", "Mount"):
        path = {"Auth": "people", "Mount": "secret"}[kind]
        await mounts(f"Tune{kind}", path=path, config=config, description="for all")
    mounts.stranger = True
    shown = await mounts("ListUiMounts")
    assert shown.auth["people/"] == mounts_pb2.MountInfo(type="userpass", description="for all")
    assert shown.secret["secret/"] == mounts_pb2.MountInfo(type="kv", description="for all")
    assert set(shown.auth) | set(shown.secret) == {"people/", "secret/"}
    mounts.stranger = False
    known = (await mounts("ListUiMounts")).auth["people/"]
    assert known.accessor
    assert list(known.config.audit_non_hmac_request_keys.values) == ["k"]


async def test_what_a_mount_cannot_have_is_refused(mounts: Mounts) -> None:
    lockout = {"user_lockout_config": {"lockout_threshold": 3}}
    for path in ("secret", "auth/token", "sys"):
        await refused(mounts("TuneMount", path=path, config=lockout), "user_lockout_config")
    version = {"plugin_version": "v1"}
    for call in (
        mounts("EnableMount", path="b", type="kv", config=version),
        mounts("EnableAuth", path="b", type="userpass", **version),
        mounts("TuneMount", path="secret", config=version),
    ):
        await refused(call, "plugin_version: must be empty")
    long = {"default_lease_ttl": 3_000 * 3_600}
    await refused(mounts("TuneMount", path="secret", config=long), "default_lease_ttl")
    await refused(mounts("EnableMount", path="b", type="kv", config=long), "default_lease_ttl")
    both = {**long, "max_lease_ttl": 3_000 * 3_600}
    await mounts("TuneMount", path="secret", config=both, description="long")
    # What was set before there was this bound stays as it is, and the rest can be changed.
    await mounts("TuneMount", path="secret", description="longer")


async def test_lockouts_are_shown_by_vaults_names_as_well(mounts: Mounts) -> None:
    assert not (await mounts("ReadAuthTuning", path="people")).lockout.ListFields()
    lockout = {"lockout_threshold": 3, "lockout_duration": 60, "lockout_disable": False}
    await mounts("TuneAuth", path="people", config={"user_lockout_config": lockout})
    shown = await mounts("ReadAuthTuning", path="people")
    assert shown.lockout == mounts_pb2.LockoutTuning(
        user_lockout_threshold=3, user_lockout_duration=60, user_lockout_disable=False
    )
    assert shown.config.user_lockout_config.lockout_threshold == 3


async def test_an_emptied_list_is_not_shown(mounts: Mounts) -> None:
    for values in (["k"], []):
        config = {"audit_non_hmac_request_keys": login_pb2.TextList(values=values)}
        await mounts("TuneMount", path="secret", config=config)
        shown = (await mounts("ReadMount", path="secret")).mount.config
        assert list(shown.audit_non_hmac_request_keys.values) == values
        assert shown.HasField("audit_non_hmac_request_keys") == bool(values)


async def test_unknown_types_are_refused(mounts: Mounts) -> None:
    await refused(mounts("EnableMount", path="x", type="nope"), "plugin not found in the catalog")
    await refused(mounts("EnableMount", path="x"), "backend type must be specified")
    await refused(mounts("EnableAuth", path="x", type="kv"), "plugin not found in the catalog")


async def test_a_move_is_over_once_what_was_given_before_it_is_certain_to_end(
    mounts: Mounts,
) -> None:
    async def status(migration: str) -> str:
        found = await mounts("ReadRemountStatus", migration_id=migration)
        return str(found.migration_info.status)

    moved = await mounts("Remount", **{"from": "secret", "to": "elsewhere"})
    assert (await status(moved.migration_id), mounts.engines.moved) == ("success", [])
    mounts.engines.away = True
    moved = await mounts("Remount", **{"from": "auth/people", "to": "auth/staff"})
    assert await status(moved.migration_id) == "in-progress"
    mounts.engines.away = False
    task = asyncio.create_task(mounts.handlers.finish_changes())
    async with asyncio.timeout(60):
        while await status(moved.migration_id) == "in-progress":
            await asyncio.sleep(0.01)
    task.cancel()
    assert mounts.engines.moved == ["auth/staff/"]


@pytest.mark.parametrize("path", ["sys", "cubbyhole"])
async def test_what_is_the_platforms_is_tuned_in_what_audit_shows_alone(
    mounts: Mounts, path: str
) -> None:
    given: dict[str, dict[str, Any]] = {
        "default_lease_ttl": {"config": {"default_lease_ttl": 60}},
        "max_lease_ttl": {"config": {"max_lease_ttl": 60}},
        "listing_visibility": {"config": {"listing_visibility": "unauth"}},
        "token_type": {"config": {"token_type": "service"}},
        "description": {"description": "x"},
        "options": {"options": {"version": "2"}},
    }
    for name, fields in given.items():
        tuned = mounts("TuneMount", path=path, **fields)
        await refused(tuned, f"cannot tune parameter {name} of {path}/")
    keys = login_pb2.TextList(values=["name"])
    await mounts("TuneMount", path=path, config={"audit_non_hmac_request_keys": keys})
    shown = await mounts("ReadMountTuning", path=path)
    assert list(shown.config.audit_non_hmac_request_keys.values) == ["name"]


async def test_login_methods_alone_have_a_type_of_tokens(mounts: Mounts) -> None:
    for kind in ("", "service", "default-service"):
        config = {"token_type": kind}
        await mounts("TuneAuth", path="people", config=config)
        await refused(
            mounts("TuneMount", path="secret", config=config), "can only be modified on auth mounts"
        )
        await refused(mounts("TuneAuth", path="token", config=config), "cannot be set for 'token'")
    for kind in ("default", "batch"):
        await refused(mounts("TuneAuth", path="people", config={"token_type": kind}), "token_type")
    # At its making OpenBao takes it, and does nothing with it.
    await mounts("EnableMount", path="other", type="kv", config={"token_type": "service"})
    assert not (await mounts("ReadMount", path="other")).mount.config.token_type


async def test_a_kv_mount_alone_has_a_version(mounts: Mounts) -> None:
    for enable, kind, what in (
        ("EnableMount", "transit", "secrets engine"),
        ("EnableAuth", "userpass", "auth method"),
    ):
        new = mounts(enable, path="new", type=kind, options={"version": "2"})
        await refused(new, f'{what} "{kind}" does not allow setting a version')
    for path in ("auth/people", "auth/token"):
        tuned = mounts("TuneMount", path=path, options={"version": "1"})
        await refused(tuned, "options.version: only a kv mount has one")
    for version in ("", "0", "3", "junk"):
        tuned = mounts("TuneMount", path="secret", options={"version": version})
        await refused(tuned, "options.version: a kv mount can be upgraded")


async def test_an_empty_option_takes_it_away(mounts: Mounts) -> None:
    await mounts("TuneMount", path="secret", options={"a": "1", "b": "2"})
    await mounts("TuneMount", path="secret", options={"a": ""})
    assert dict((await mounts("ReadMount", path="secret")).mount.options) == {"b": "2"}

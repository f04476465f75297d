"""Policies and capabilities."""

import asyncio
import base64
import datetime
import json
import math
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.auth.harness import ROOT, Auth, count, refused

from strongroom_auth.policies import storage
from strongroom_auth.policies.records import PolicyRecord
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.policy import Policy, parse_policy
from strongroom_runtime.storage import Plain, Transaction

TEXT = 'path "secret/*" { capabilities = ["read", "list"] }'
EVERYTHING = """
name = "team/app"
path "a" {
  capabilities = ["create", "list"]
  allowed_parameters = { "x" = ["1", 2], "y" = [] }
  denied_parameters = { "z" = [] }
  required_parameters = ["x"]
  min_wrapping_ttl = "1m"
  max_wrapping_ttl = "1h"
  pagination_limit = 5
  comment = "kept as well"
}
"""


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


async def test_a_policy_comes_back_as_it_was_written(auth: Auth) -> None:
    await auth("WritePolicy", name=" App ", policy=TEXT)
    assert (await auth("ReadPolicy", name="APP")).policy == TEXT
    old = await auth("ReadPolicyOld", name="app")
    assert (old.name, old.rules, old.policy) == ("app", TEXT, TEXT)
    assert list((await auth("ListPolicies")).keys) == ["app", "default", "root"]
    for method in ("ListPoliciesOld", "ReadPoliciesOld"):
        names = await auth(method)
        assert list(names.keys) == list(names.policies) == ["app", "default", "root"]
    await auth("DeletePolicy", name="App ")
    await refused(auth("ReadPolicy", name="app"), Kind.NOT_FOUND)
    await auth("DeletePolicyOld", name="app")


async def test_a_long_policy_is_checked_beside_the_event_loop(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[threading.Thread] = []

    def noted(name: str, text: str) -> Policy:
        used.append(threading.current_thread())
        return parse_policy(name, text)

    monkeypatch.setattr(storage, "parse_policy", noted)
    await auth("WritePolicy", name="short", policy=TEXT)
    await auth("WritePolicy", name="long", policy=TEXT + "#" * 100_000)
    await refused(auth("WritePolicy", name="long", policy=TEXT * 1_000 + "{"), Kind.INVALID)
    assert [each is threading.current_thread() for each in used] == [True, False, False]


@pytest.mark.parametrize("text", [TEXT, "#\n" + TEXT * 9, '{"path": {"ä": {"policy": "read"}}}'])
async def test_a_text_may_come_in_base64(auth: Auth, text: str) -> None:
    one_line = base64.b64encode(text.encode()).decode()
    lines = base64.encodebytes(text.encode()).decode()
    for sent in (one_line, lines, lines.replace("\n", "\r\n")):
        await auth("WritePolicyOld", name="b64", policy=sent)
        assert (await auth("ReadPolicy", name="b64")).policy == text


async def test_every_field_counts_after_a_restart(auth: Auth) -> None:
    await auth("WritePolicy", name="team/app", policy=EVERYTHING)
    twin = await auth.twin()
    assert (await twin("ReadPolicy", name="team/app")).policy == EVERYTHING
    made = await twin.create(policies=["team/app"], no_default_policy=True)
    answer = await twin("ResultantAcl", await twin.context(made.client_token))
    assert json.loads(answer.exact_paths) == {
        "a": {
            "capabilities": ["create", "list"],
            "allowed_parameters": {"x": ["1", 2], "y": []},
            "denied_parameters": {"z": []},
            "required_parameters": ["x"],
            "min_wrapping_ttl": 60,
            "max_wrapping_ttl": 3600,
            "pagination_limit": 5,
        }
    }


async def test_a_policy_tells_its_version_and_when_it_was_written(auth: Auth) -> None:
    for version in (1, 2):
        await auth("WritePolicy", name="app", policy=TEXT)
        shown = await auth("ReadPolicy", name="app")
        assert (shown.version, shown.modified.seconds) == (version, int(auth.clock.now()))
        auth.clock.advance(60)
    assert (await auth("ReadPolicy", name="default")).version == 0


async def test_check_and_set_has_one_winner(auth: Auth) -> None:
    twin = await auth.twin()
    write: dict[str, Any] = {"name": "app", "policy": TEXT}
    both = [each("WritePolicy", cas=-1, **write) for each in (auth, twin) * 5]
    assert await count(both) == 1
    await refused(auth("WritePolicy", cas=-1, **write), Kind.INVALID, "existing entry")
    await refused(auth("WritePolicy", cas=7, **write), Kind.INVALID, "did not match")
    both = [each("WritePolicy", cas=1, **write) for each in (auth, twin) * 5]
    assert await count(both) == 1
    await auth("WritePolicy", cas=2, cas_required=True, **write)
    await refused(auth("WritePolicy", **write), Kind.INVALID, "required")
    await refused(auth("WritePolicy", cas_required=False, **write), Kind.INVALID, "required")
    await auth("PatchPolicy", name="app", cas=3, cas_required=False)
    await auth("WritePolicy", **write)
    assert (await auth("ReadPolicy", name="app")).version == 5


async def test_a_patch_changes_what_it_gives(auth: Auth) -> None:
    await refused(auth("PatchPolicy", name="app", policy=TEXT), Kind.INVALID, "not found")
    await auth("WritePolicy", name="app", policy=TEXT)
    await auth("PatchPolicy", name="app", cas_required=True, cas=1)
    shown = await auth("ReadPolicy", name="app")
    assert (shown.policy, shown.cas_required) == (TEXT, True)
    other = TEXT.replace("list", "scan")
    await auth("PatchPolicy", name="app", policy=other, cas=2)
    assert (await auth("ReadPolicy", name="app")).policy == other
    await refused(auth("PatchPolicy", name="app", policy="x", cas=3), Kind.INVALID, "parse")


async def test_policies_are_listed_below_a_prefix_and_in_detail(auth: Auth) -> None:
    for name in ("team/a", "team/b/c", "teams"):
        await auth("WritePolicy", name=name, policy=TEXT)
    assert list((await auth("ListPolicies", prefix="Team")).keys) == ["team/a", "team/b/c"]
    await refused(auth("ListPolicies", prefix="nope"), Kind.NOT_FOUND)
    detailed = await auth("ListPoliciesDetailed", prefix="team", limit=1)
    assert list(detailed.keys) == ["team/a"]
    assert detailed.key_info["team/a"].policy == TEXT
    assert set((await auth("ListPoliciesDetailed")).key_info) >= {"default", "root", "teams"}


async def test_a_policy_that_was_stored_before_there_were_versions_counts(auth: Auth) -> None:
    old = Transaction(puts={(Plain("policy"), "old"): f"# ä\n{TEXT}".encode()})
    await auth.store.commit(old)
    assert (await auth("ReadPolicy", name="old")).policy.endswith(TEXT)
    await auth("WritePolicy", name="old", policy=TEXT, cas=1)
    assert (await auth("ReadPolicy", name="old")).version == 2


def rfc3339(seconds: float, zone: str = "+00:00") -> str:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat()[:19] + zone


@pytest.mark.parametrize("method", ["WritePolicy", "WritePolicyOld"])
async def test_a_policy_that_has_ended_is_not_there(auth: Auth, method: str) -> None:
    made = await auth.create(policies=["app"], no_default_policy=True)
    context = await auth.context(made.client_token)
    await auth(method, name="app", policy=TEXT, ttl="1h")
    shown = await auth("ReadPolicy", name="app")
    assert shown.expiration.seconds == int(auth.clock.now()) + 3600
    assert (await auth("ReadPolicyOld", name="app")).expiration == shown.expiration
    resolved = await auth("ResolvePolicies", names=["app", "default", "none"])
    assert 3599 < resolved.seconds_left <= 3600
    auth.clock.advance(3599)
    for process in (auth, await auth.twin()):
        judged = await process("CapabilitiesSelf", context, paths=["secret/a"])
        assert json.loads(judged.document)["secret/a"] == ["list", "read"]
    auth.clock.advance(1)
    for process in (auth, await auth.twin()):
        judged = await process("CapabilitiesSelf", context, paths=["secret/a"])
        assert json.loads(judged.document)["secret/a"] == ["deny"]
        resolved = await process("ResolvePolicies", names=["app", "default"])
        assert (list(resolved.texts), resolved.seconds_left) == (["default"], 0)
        assert list((await process("ListPolicies")).keys) == ["default", "root"]
        assert list((await process("ListPoliciesDetailed")).keys) == ["default", "root"]
        await refused(process("ReadPolicy", name="app"), Kind.NOT_FOUND)
        patch = process("PatchPolicy", name="app", ttl="1h")
        await refused(patch, Kind.INVALID, "policy not found")
    await auth(method, name="app", policy=TEXT, cas=-1)
    anew = await auth("ReadPolicy", name="app")
    assert (anew.version, anew.HasField("expiration")) == (1, False)


async def test_a_policys_end_is_changed_by_whoever_writes_it(auth: Auth) -> None:
    async def left(method: str, **given: Any) -> float:
        await auth(method, name="app", **given)
        return float((await auth("ResolvePolicies", names=["app"])).seconds_left)

    now = auth.clock.now()
    assert 60 - await left("WritePolicy", policy=TEXT, ttl="60") < 1
    assert 60 - await left("PatchPolicy", cas_required=False) < 1
    assert 90 - await left("PatchPolicy", ttl="1m30s") < 1
    for end in (rfc3339(now + 120), rfc3339(now + 120, "Z"), str(int(now) + 120)):
        assert 120 - await left("PatchPolicy", expiration=end) < 2
    east = rfc3339(now + 7200, "+01:00")
    assert 3600 - await left("PatchPolicy", expiration=east) < 2
    assert await left("WritePolicy", policy=TEXT) == 0
    bad: list[tuple[dict[str, Any], str]] = [
        ({"ttl": "1h", "expiration": "2030-01-01T00:00:00Z"}, "cannot supply both"),
        ({"ttl": "soon"}, "ttl: "),
        ({"ttl": "0"}, "already elapsed"),
        ({"ttl": str(1 << 40)}, "ttl: takes a duration of 292 years"),
        ({"expiration": "2020-01-01T00:00:00Z"}, "already elapsed"),
        ({"expiration": "2030-01-01T00:00:00"}, "RFC 3339"),
        ({"expiration": "253402300800"}, "RFC 3339"),
        ({"expiration": "tomorrow"}, "RFC 3339"),
    ]
    for wrong, message in bad:
        await refused(auth("WritePolicy", name="app", policy=TEXT, **wrong), Kind.INVALID, message)
    assert await left("PatchPolicy", cas_required=False) == 0


async def test_a_path_of_a_policy_that_has_ended_is_not_there(auth: Auth) -> None:
    end = int(auth.clock.now()) + 3600
    text = f"""path "secret/a" {{ capabilities = ["read"] expiration = {end} }}
      path "secret/b" {{ capabilities = ["deny"] expiration = "{rfc3339(end, "Z")}" }}
      path "secret/*" {{ capabilities = ["list"] }}
      path "old/*" {{ capabilities = ["read"] expiration = "2020-01-01T00:00:00Z" }}"""
    await auth("WritePolicy", name="app", policy=text)
    made = await auth.create(policies=["app"], no_default_policy=True)
    context = await auth.context(made.client_token)
    twin = await auth.twin()
    for step, a, b, exact in (
        (3599, ["read"], ["deny"], {"secret/a", "secret/b"}),
        (1, ["list"], ["list"], set[str]()),
    ):
        auth.clock.advance(step)
        for process in (auth, twin):
            paths = ["secret/a", "secret/b", "old/x"]
            judged = [
                await process("CapabilitiesSelf", context, paths=paths),
                await process("Capabilities", token=made.client_token, paths=paths),
                await process("CapabilitiesAccessor", accessor=made.accessor, paths=paths),
            ]
            for each in judged:
                assert json.loads(each.document) == dict(zip(paths, (a, b, ["deny"]), strict=True))
            rules = await process("ResultantAcl", context)
            assert set(json.loads(rules.exact_paths)) == exact
            assert json.loads(rules.glob_paths) == {"secret/": {"capabilities": ["list"]}}
            resolved = await process("ResolvePolicies", names=["app"])
            assert (resolved.now, resolved.seconds_left) == (auth.clock.now(), 0)
    assert (await auth("ReadPolicy", name="app")).policy == text
    bad = auth("WritePolicy", name="app", policy=text.replace("2020-01-01T00", "2020-01-01"))
    await refused(bad, Kind.INVALID, 'line 4: path "old/*": expiration takes RFC 3339')


async def test_the_default_policy_comes_back_when_another_ends(auth: Auth) -> None:
    builtin = (await auth("ReadPolicy", name="default")).policy
    await auth("WritePolicy", name="default", policy=TEXT, ttl="1h")
    assert (await auth("ReadPolicy", name="default")).policy == TEXT
    auth.clock.advance(3601)
    assert (await auth("ReadPolicy", name="default")).policy == builtin


async def test_policies_that_have_ended_make_room(auth: Auth) -> None:
    await auth("WritePolicy", name="kept", policy=TEXT)
    await auth("WritePolicy", name="ended", policy=TEXT, ttl="1h")
    auth.clock.advance(3601)
    assert (await auth.stored("policy"), await auth.stored("policy-due")) == (2, 1)
    ending, other = auth.service._policies.ending, (await auth.twin()).service._policies.ending
    await asyncio.gather(ending.remove(), ending.remove(), other.remove())
    assert (await auth.stored("policy"), await auth.stored("policy-due")) == (1, 0)
    assert (await auth("ReadPolicy", name="kept")).policy == TEXT


async def test_removing_and_listing_look_at_what_has_ended_alone(auth: Auth) -> None:
    for number in range(250):
        await auth("WritePolicy", name=f"kept-{number}", policy=TEXT)
        await auth("WritePolicy", name=f"later-{number}", policy=TEXT, ttl="2h")
        await auth("WritePolicy", name=f"ended-{number}", policy=TEXT, ttl=f"{number}m1s")
    auth.clock.advance(3601)
    ending = auth.service._policies.ending
    await ending.complete_index()
    names = list((await auth("ListPolicies")).keys)
    assert len(names) == 2 + 250 + 250 + (250 - 61)
    assert "ended-60" not in names and "ended-61" in names
    before = auth.store.listed
    assert len(await ending.gone()) == 61
    await ending.remove()
    assert auth.store.listed - before <= 2 * 100  # a page each
    assert await auth.stored("policy") == len(names) - 2


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "patch", "delete", "wait", "remove", "old", "start"]),
        st.sampled_from(["a", "b", "team/c"]),
        st.sampled_from([0, 0, 5, 60, 90]),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
async def test_the_index_finds_what_ends_and_the_record_decides(
    operations: list[tuple[str, str, int]],
) -> None:
    auth = await Auth().prepare()
    twin, ends = await auth.twin(), dict[str, float]()
    for number, (operation, name, seconds) in enumerate(operations):
        process, now = (auth, twin)[number % 2], auth.clock.now()
        ends = {name: end for name, end in ends.items() if end > now}
        given_end: dict[str, Any] = {"ttl": str(seconds)} if seconds else {}
        if operation == "write":
            await process("WritePolicy", name=name, policy=TEXT, **given_end)
            ends[name] = now + seconds if seconds else math.inf
        elif operation == "patch" and name in ends:
            await process("PatchPolicy", name=name, policy=TEXT, **given_end)
            ends[name] = now + seconds if seconds else ends[name]
        elif operation == "delete":
            await process("DeletePolicy", name=name)
            ends.pop(name, None)
        elif operation == "wait":
            auth.clock.advance(seconds)
            ends = {name: end for name, end in ends.items() if end > auth.clock.now()}
        elif operation == "remove":
            await process.service._policies.ending.remove()
        elif operation == "old":  # a process of the version before the index
            record = PolicyRecord(TEXT, expires=now + seconds if seconds else 0)
            value = msgspec.msgpack.encode(record)
            await auth.store.commit(Transaction(puts={(Plain("policy"), name): value}))
            ends[name] = record.expires or math.inf
        elif operation == "start":
            await process.service._policies.ending.complete_index()
        for each in (auth, twin):
            for policy in ("a", "b", "team/c"):
                there = len((await each("ResolvePolicies", names=[policy])).texts) == 1
                assert there == (policy in ends), policy
    await twin.service._policies.ending.complete_index()
    for each in (auth, twin):
        names = set((await each("ListPolicies")).keys)
        assert names == {"default", "root", *ends}
    await twin.service._policies.ending.remove()
    assert await auth.stored("policy") == len(ends)
    found = {(int(e.path[1]), e.path[2]) for e in await auth.store.scan((Plain("policy-due"),))}
    assert {(int(end), name) for name, end in ends.items() if end < math.inf} <= found
    # What an earlier version left there goes when its time has come.
    auth.clock.advance(1000)
    await twin.service._policies.ending.remove()
    assert await auth.stored("policy-due") == 0
    assert await auth.stored("policy") == sum(end == math.inf for end in ends.values())


async def test_a_crash_leaves_no_policy_without_its_place_in_the_index(auth: Auth) -> None:
    auth.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "died")
    with pytest.raises(ServiceError):
        await auth("WritePolicy", name="app", policy=TEXT, ttl="1h")
    assert (await auth.stored("policy"), await auth.stored("policy-due")) == (0, 0)
    await auth("WritePolicy", name="app", policy=TEXT, ttl="1h")
    auth.store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "died")
    with pytest.raises(ServiceError):
        await auth("DeletePolicy", name="app")
    assert (await auth.stored("policy"), await auth.stored("policy-due")) == (1, 1)


@pytest.mark.parametrize("name", ["", "  ", "x" * 513])
async def test_a_name_must_be_one(auth: Auth, name: str) -> None:
    await refused(auth("WritePolicy", name=name, policy=TEXT), Kind.INVALID, "name: ")
    await refused(auth("ReadPolicy", name=name), Kind.NOT_FOUND)
    if not name.strip():
        await refused(auth("DeletePolicy", name=name), Kind.INVALID, "name: ")


@pytest.mark.parametrize("name", ["root", "Root", " ROOT", "Response-Wrapping"])
async def test_what_is_fixed_cannot_be_changed_however_it_is_spelled(auth: Auth, name: str) -> None:
    before = (await auth("ReadPolicy", name=name)).policy
    fixed = f'"{name.strip().lower()}" policy'
    await refused(
        auth("WritePolicy", name=name, policy=TEXT), Kind.INVALID, f"cannot update {fixed}"
    )
    await refused(auth("DeletePolicy", name=name), Kind.INVALID, f"cannot delete {fixed}")
    assert (await auth("ReadPolicy", name=name)).policy == before
    await refused(auth("WritePolicyOld", name=name, policy=TEXT), Kind.INVALID, fixed)
    await refused(auth("DeletePolicyOld", name=name), Kind.INVALID, fixed)
    assert (await auth("ReadPolicy", name=name)).policy == before


async def test_default_can_be_changed_but_not_removed(auth: Auth) -> None:
    assert "lookup-self" in (await auth("ReadPolicy", name="default")).policy
    await auth("WritePolicy", name="default", policy=TEXT)
    assert (await auth("ReadPolicy", name="default")).policy == TEXT
    await refused(auth("DeletePolicy", name="Default"), Kind.INVALID, "default")
    await refused(auth("DeletePolicyOld", name=" default"), Kind.INVALID, "default")


@pytest.mark.parametrize("text", ["", "  ", 'path "a" {', 'path "a" { capabilities = ["x"] }'])
async def test_what_does_not_parse_changes_nothing(auth: Auth, text: str) -> None:
    await refused(auth("WritePolicy", name="app", policy=text), Kind.INVALID, "policy")
    await refused(auth("ReadPolicy", name="app"), Kind.NOT_FOUND)


async def test_capabilities(auth: Auth) -> None:
    await auth("WritePolicy", name="app", policy=TEXT)
    made = await auth.create(policies=["app", "absent"])
    answer = await auth("Capabilities", token=made.client_token, paths=["secret/a", "x"])
    assert json.loads(answer.document) == {"secret/a": ["list", "read"], "x": ["deny"]}
    answer = await auth("CapabilitiesAccessor", accessor=made.accessor, paths=["secret/a"])
    assert json.loads(answer.document)["capabilities"] == ["list", "read"]
    answer = await auth("CapabilitiesSelf", await auth.context(ROOT), paths=["x"])
    assert json.loads(answer.document) == {"x": ["root"], "capabilities": ["root"]}
    own = await auth.context(made.client_token)
    # Whatever token is sent along, the caller's counts.
    answer = await auth("CapabilitiesSelf", own, token=ROOT, paths=["//secret/a/", "secret", "x"])
    assert json.loads(answer.document) == {
        "//secret/a/": ["list", "read"],
        "secret": ["deny"],
        "x": ["deny"],
    }


async def test_capabilities_need_a_token_and_paths(auth: Auth) -> None:
    unknown = auth("Capabilities", token="srs.unknown", paths=["x"])
    await refused(unknown, Kind.INVALID, "invalid token")
    await refused(auth("Capabilities", paths=["x"]), Kind.INVALID, "missing token")
    await refused(auth("Capabilities", token=ROOT), Kind.INVALID, "paths must be supplied")
    await refused(auth("Capabilities", token=ROOT, paths=["a", ""]), Kind.INVALID, "missing path")
    many = [str(n) for n in range(1001)]
    await refused(auth("Capabilities", token=ROOT, paths=many), Kind.INVALID, "at most 1000")
    unknown = auth("CapabilitiesAccessor", accessor="unknown", paths=["x"])
    await refused(unknown, Kind.INVALID, "invalid accessor")
    await refused(auth("CapabilitiesAccessor", paths=["x"]), Kind.INVALID, "missing accessor")
    await refused(auth("CapabilitiesSelf", paths=["x"]), Kind.DENIED, "missing client token")


async def test_capabilities_follow_what_is_written(auth: Auth) -> None:
    made = await auth.create(policies=["app"])
    for text, capabilities in (
        (TEXT, ["list", "read"]),
        ('path "secret/*" { capabilities = ["update"] }', ["update"]),
        (TEXT + ' path "secret/a" { capabilities = ["deny"] }', ["deny"]),
    ):
        await auth("WritePolicy", name="app", policy=text)
        answer = await auth("Capabilities", token=made.client_token, paths=["secret/a"])
        assert json.loads(answer.document)["capabilities"] == capabilities
    await auth("DeletePolicy", name="app")
    answer = await auth("Capabilities", token=made.client_token, paths=["secret/b"])
    assert json.loads(answer.document)["capabilities"] == ["deny"]


DEFAULT_GRANTS = {
    "read": ["auth/token/lookup-self", "sys/internal/ui/resultant-acl", "cubbyhole/a"],
    "update": [
        "auth/token/renew-self",
        "auth/token/revoke-self",
        "sys/capabilities-self",
        "sys/renew",
        "sys/leases/renew",
        "sys/leases/lookup",
        "sys/wrapping/wrap",
        "sys/wrapping/lookup",
        "sys/wrapping/unwrap",
        "sys/tools/hash",
        "sys/tools/hash/sha2-512",
        "cubbyhole/a/b",
    ],
    "list": ["cubbyhole/"],
    "deny": [
        "auth/token/create",
        "sys/policies/acl/default",
        "sys/mounts",
        "secret/a",
        "cubbyhole",
    ],
}


async def test_what_every_token_may_do(auth: Auth) -> None:
    made = await auth.create(policies=["default"])
    own = await auth.context(made.client_token)
    for capability, paths in DEFAULT_GRANTS.items():
        answer = json.loads((await auth("CapabilitiesSelf", own, paths=paths)).document)
        assert all(capability in answer[path] for path in paths), (capability, answer)


async def test_the_resultant_rules(auth: Auth) -> None:
    await auth(
        "WritePolicy", name="app", policy=TEXT + ' path "a" { capabilities = ["read"] } path "n" {}'
    )
    made = await auth.create(policies=["app"], no_default_policy=True)
    answer = await auth("ResultantAcl", await auth.context(made.client_token))
    rules = {"a": {"capabilities": ["read"]}, "n": {"capabilities": ["deny"]}}
    assert json.loads(answer.exact_paths) == rules
    assert json.loads(answer.glob_paths) == {"secret/": {"capabilities": ["list", "read"]}}
    assert not answer.root
    answer = await auth("ResultantAcl", await auth.context(ROOT))
    assert answer.root
    assert not (answer.HasField("exact_paths") or answer.HasField("glob_paths"))


async def test_policies_are_resolved_with_what_they_rest_on(auth: Auth) -> None:
    await auth("WritePolicy", name="app", policy=TEXT)
    answer = await auth("ResolvePolicies", names=["app", "absent", "root", "default"])
    assert set(answer.texts) == {"app", "root", "default"}
    # Those that are absent or built in may come to be written: their keys count as well.
    assert len(answer.dependencies) == 3


async def test_a_policy_that_does_not_open_keeps_no_other_from_ending(auth: Auth) -> None:
    for number in range(3):
        await auth("WritePolicy", name=f"ended-{number}", policy=TEXT, ttl=f"{number + 1}m")
    auth.clock.advance(3601)
    auth.store.broken.add((Plain("policy"), "ended-0"))
    await auth.store.commit(Transaction(puts={(Plain("policy"), "ended-1"): b""}))  # empty
    ending = auth.service._policies.ending
    await ending.complete_index()
    assert set((await auth("ListPolicies")).keys) == {"default", "root", "ended-0", "ended-1"}
    await ending.remove()
    left = {name for name, _ in await auth.store.children((Plain("policy"),))}
    assert {"ended-0", "ended-1"} == left - {"default"}
    assert {path[-1] for path, _ in auth.store.noted} == {"ended-0", "ended-1"}
    auth.store.broken.clear()
    await ending.remove()
    assert "ended-0" not in {name for name, _ in await auth.store.children((Plain("policy"),))}

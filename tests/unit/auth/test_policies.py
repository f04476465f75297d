"""Policies and capabilities."""

import base64
import json

import pytest
from tests.unit.auth.harness import ROOT, Auth, refused

from strongroom_runtime.errors import Kind

TEXT = 'path "secret/*" { capabilities = ["read", "list"] }'


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


async def test_a_policy_comes_back_as_it_was_written(auth: Auth) -> None:
    await auth("WritePolicy", name=" App ", policy=TEXT)
    assert (await auth("ReadPolicy", name="APP")).policy == TEXT
    old = await auth("ReadPolicyOld", name="app")
    assert (old.name, old.rules, old.policy) == ("app", TEXT, TEXT)
    assert list((await auth("ListPolicies")).keys) == ["app", "default", "root"]
    await auth("WritePolicyOld", name="b64", policy=base64.b64encode(TEXT.encode()).decode())
    assert (await auth("ReadPolicy", name="b64")).policy == TEXT
    await auth("DeletePolicy", name="app")
    await refused(auth("ReadPolicy", name="app"), Kind.NOT_FOUND)


@pytest.mark.parametrize("name", ["root", "Root", " ROOT"])
async def test_root_cannot_be_changed_however_it_is_spelled(auth: Auth, name: str) -> None:
    await refused(auth("WritePolicy", name=name, policy=TEXT), Kind.INVALID, "root")
    await refused(auth("DeletePolicy", name=name), Kind.INVALID, "root")


async def test_default_can_be_changed_but_not_removed(auth: Auth) -> None:
    assert "lookup-self" in (await auth("ReadPolicy", name="default")).policy
    await auth("WritePolicy", name="default", policy=TEXT)
    assert (await auth("ReadPolicy", name="default")).policy == TEXT
    await refused(auth("DeletePolicy", name="Default"), Kind.INVALID, "default")


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
    await refused(auth("Capabilities", token="srs.unknown", paths=["x"]), Kind.DENIED)
    await refused(auth("Capabilities", token=ROOT), Kind.INVALID, "paths")


async def test_the_resultant_rules(auth: Auth) -> None:
    await auth("WritePolicy", name="app", policy=TEXT + ' path "a" { capabilities = ["read"] }')
    made = await auth.create(policies=["app"], no_default_policy=True)
    answer = await auth("ResultantAcl", await auth.context(made.client_token))
    assert json.loads(answer.exact_paths) == {"a": {"capabilities": ["read"]}}
    assert json.loads(answer.glob_paths) == {"secret/": {"capabilities": ["list", "read"]}}
    assert not answer.root


async def test_policies_are_resolved_with_what_they_rest_on(auth: Auth) -> None:
    await auth("WritePolicy", name="app", policy=TEXT)
    answer = await auth("ResolvePolicies", names=["app", "absent", "root", "default"])
    assert set(answer.texts) == {"app", "root", "default"}
    # Those that are absent or built in may come to be written: their keys count as well.
    assert len(answer.dependencies) == 3

"""What a token may do with a path is told as requests to it are judged: of the name meant, however it is spelled."""

import json
from typing import Any

import pytest
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import policy_pb2 as pb
from strongroom_gateway.contract.public import public_services
from strongroom_gateway.contract.routes import MethodSpec, RouteTable, path_for, respelled
from strongroom_gateway.judged_paths import WithJudgedPaths
from strongroom_gateway.mounts.table import MountTable, new_mount
from strongroom_runtime.context import RequestContext
from strongroom_runtime.policy import Acl, parse_policy

ROUTES = RouteTable(public_services())
POLICY = """
path "auth/people/users/*" { capabilities = ["read", "update"] }
path "auth/people/users/admin" { capabilities = ["deny"] }
path "auth/people/users/admin/*" { capabilities = ["deny"] }
path "sys/policies/acl/*" { capabilities = ["read"] }
path "sys/policies/acl/secret/*" { capabilities = ["deny"] }
path "team/*" { capabilities = ["read"] }
path "team/data/admin" { capabilities = ["deny"] }
"""
FOLDED = [spec for spec in ROUTES.methods.values() if spec.any_case]


class Auth:
    """An auth service that judges paths as they are spelled."""

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        acl = Acl.compile([parse_policy("p", POLICY)], 0)
        judged = {path: acl.capabilities(path.lstrip("/")) for path in request.paths}
        if len(request.paths) == 1:
            judged["capabilities"] = judged[request.paths[0]]
        return pb.CapabilitiesSelfResponse(document=json.dumps(judged).encode())


async def told(*paths: str) -> dict[str, list[str]]:
    mounts = MountTable(MemoryStore())
    made = {
        "auth/people/": new_mount("auth/people/", "userpass"),
        "team/": new_mount("team/", "kv", options={"version": "2"}),
    }
    await mounts.change(lambda known: known | made)
    auth: Any = Auth()
    request = pb.CapabilitiesSelfRequest(paths=paths)
    response = await WithJudgedPaths(auth, ROUTES, mounts).call(
        "/strongroom.auth.v1.PolicyService/CapabilitiesSelf", request, RequestContext("r")
    )
    assert list(request.paths) == list(paths)
    answer: dict[str, list[str]] = json.loads(response.document)
    return answer


@pytest.mark.parametrize(
    ("path", "capabilities"),
    [
        ("auth/people/users/admin", ["deny"]),
        ("auth/people/users/ADMIN", ["deny"]),
        ("/auth/people/users/ Admin /", ["deny"]),
        ("auth/people/users/ADMIN/password", ["deny"]),
        ("auth/people/users/Other", ["read", "update"]),
        ("sys/policies/acl/Secret/x", ["deny"]),
        ("sys/policies/acl/Secret/x/", ["deny"]),
        ("sys/policies/acl/Public/x", ["read"]),
        # What is another name in capitals stays one.
        ("team/data/ADMIN", ["read"]),
        ("team/data/admin", ["deny"]),
        ("auth/people/nothing/ADMIN", ["deny"]),
        ("auth/people", ["deny"]),
        ("team/", ["read"]),
        ("nowhere/ADMIN", ["deny"]),
        ("/", ["deny"]),
    ],
)
async def test_a_path_is_judged_in_the_spelling_in_which_requests_are(
    path: str, capabilities: list[str]
) -> None:
    assert await told(path) == {path: capabilities, "capabilities": capabilities}


async def test_each_of_several_paths_stands_in_the_answer_as_it_was_sent() -> None:
    assert await told("auth/people/users/ADMIN", "auth/people/users/admin", "team/x") == {
        "auth/people/users/ADMIN": ["deny"],
        "auth/people/users/admin": ["deny"],
        "team/x": ["read"],
    }


async def test_too_many_paths_are_left_to_the_auth_service() -> None:
    paths = [f"auth/people/users/ADMIN{number}" for number in range(1_001)]
    assert await told(*paths) == {path: ["read", "update"] for path in paths}


@pytest.mark.parametrize("spec", FOLDED, ids=lambda spec: spec.name)
def test_all_methods_of_a_path_fold_the_same_names(spec: MethodSpec) -> None:
    """So that one spelling can be told of a path, whatever is asked of it."""
    names = [name for name in spec.path_fields if name != "mount"]
    message = spec.request(**dict.fromkeys(names, "Some-NAME"))
    path = path_for(spec, message).rstrip("/")
    expected, _ = respelled(spec, path, ROUTES.captures(spec, path))
    assert expected != path
    assert ROUTES.respelled(spec.mount, path) == expected

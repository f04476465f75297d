"""The OpenAPI document: what it says of answers holds of those that are given."""

import json
from typing import Any

from openapi_schema_validator import OAS30Validator

from tests.integration.client import Answer
from tests.integration.platforms import Platform

MOUNTS = {
    "sys/mounts/described": "transit",
    "sys/auth/described-roles": "approle",
    "sys/auth/described-users": "userpass",
}
# Verb, path as described, path as asked, body; in order, since some need what others made.
ASKED: list[tuple[str, str, str, Any]] = [
    ("get", "/sys/mounts", "sys/mounts", None),
    ("get", "/sys/mounts/{path}/tune", "sys/mounts/described/tune", None),
    ("get", "/sys/auth", "sys/auth", None),
    ("get", "/sys/seal-status", "sys/seal-status", None),
    ("get", "/sys/health", "sys/health", None),
    ("get", "/sys/audit", "sys/audit", None),
    ("get", "/sys/host-info", "sys/host-info", None),
    ("get", "/sys/in-flight-req", "sys/in-flight-req", None),
    ("get", "/sys/rotate/config", "sys/rotate/config", None),
    ("get", "/sys/internal/ui/mounts", "sys/internal/ui/mounts", None),
    ("post", "/sys/capabilities-self", "sys/capabilities-self", {"paths": ["secret/a", "sys/b"]}),
    ("post", "/sys/tools/random/{bytes}", "sys/tools/random/8", {}),
    ("post", "/sys/policies/acl/{name}", "sys/policies/acl/described", {"policy": ""}),
    ("get", "/sys/policies/acl/{name}", "sys/policies/acl/described", None),
    ("get", "/sys/policies/acl/", "sys/policies/acl/?list=true", None),
    ("delete", "/sys/policies/acl/{name}", "sys/policies/acl/described", None),
    ("post", "/secret/data/{path}", "secret/data/described/a", {"data": {"n": [1, None]}}),
    ("get", "/secret/data/{path}", "secret/data/described/a", None),
    ("get", "/secret/data/{path}", "secret/data/described/none", None),
    ("post", "/secret/metadata/{path}", "secret/metadata/described/a", {"max_versions": 3}),
    ("get", "/secret/metadata/{path}", "secret/metadata/described/a", None),
    ("get", "/secret/metadata/{path}/", "secret/metadata/described/?list=true", None),
    ("get", "/secret/metadata/{path}/", "secret/metadata/described/?scan=true", None),
    ("delete", "/secret/metadata/{path}", "secret/metadata/described/a", None),
    ("post", "/cubbyhole/{path}", "cubbyhole/described", {"a": {"b": 1}}),
    ("get", "/cubbyhole/{path}", "cubbyhole/described", None),
    ("post", "/described/keys/{name}", "described/keys/k", {"type": "ed25519"}),
    ("get", "/described/keys/{name}", "described/keys/k", None),
    ("post", "/described/encrypt/{name}", "described/encrypt/e", {"plaintext": "YQ=="}),
    ("post", "/described/encrypt/{name}", "described/encrypt/e",
     {"batch_input": [{"plaintext": "YQ=="}, {"plaintext": "?", "reference": "r"}]}),
    ("post", "/described/sign/{name}", "described/sign/k", {"input": "YQ=="}),
    ("post", "/described/random/{source}/{bytes}", "described/random/platform/8", {}),
    ("post", "/auth/token/create", "auth/token/create", {"policies": ["default"], "ttl": "1h"}),
    ("get", "/auth/token/lookup-self", "auth/token/lookup-self", None),
    ("get", "/auth/token/accessors/", "auth/token/accessors/?list=true", None),
    ("post", "/auth/token/roles/{role_name}", "auth/token/roles/described", {}),
    ("get", "/auth/token/roles/{role_name}", "auth/token/roles/described", None),
    ("post", "/auth/described-roles/role/{role_name}", "auth/described-roles/role/r", {}),
    ("get", "/auth/described-roles/role/{role_name}", "auth/described-roles/role/r", None),
    ("post", "/auth/described-roles/role/{role_name}/secret-id",
     "auth/described-roles/role/r/secret-id", {"metadata": {"a": "b"}}),
    ("post", "/auth/described-users/users/{username}", "auth/described-users/users/u",
     {"password": "described"}),
    ("get", "/auth/described-users/users/{username}", "auth/described-users/users/u", None),
    ("post", "/auth/described-users/login/{username}", "auth/described-users/login/u",
     {"password": "described"}),
    ("post", "/auth/described-users/login/{username}", "auth/described-users/login/u",
     {"password": "other"}),
    ("delete", "/sys/auth/{path}", "sys/auth/described-users", None),
    ("delete", "/sys/auth/{path}", "sys/auth/described-roles", None),
    ("delete", "/sys/mounts/{path}", "sys/mounts/described", None),
]  # fmt: skip


def closed(schema: Any) -> Any:
    """Returns a schema that allows nothing but what it names: what is answered and not described is an error."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        return {"additionalProperties": False, **inner}
    return inner


def wrong(document: Any, operation: Any, answer: Answer) -> list[str]:
    """Returns what of an answer is not as the document says."""
    refused = answer.status_code >= 400
    responses = document["components"]["responses"] if refused else operation["responses"]
    described = responses["Error" if refused else str(answer.status_code)]
    if "content" not in described:
        return [answer.text] if answer.content else []
    schema = described["content"]["application/json"]["schema"]
    validator = OAS30Validator({**schema, "components": document["components"]})
    errors = validator.iter_errors(answer.json())
    return [f"{list(error.absolute_path)}: {error.message}" for error in errors]


def test_answers_are_as_described(platform: Platform) -> None:
    for path, kind in MOUNTS.items():
        assert platform.http("POST", path, json={"type": kind}).ok
    document = closed(platform.http("GET", "sys/internal/specs/openapi").json())
    found = {}
    for verb, described, path, body in ASKED:
        answer = platform.http(verb.upper(), path, json=body)
        assert answer.status_code < 500
        operation = document["paths"][described][verb]
        if errors := wrong(document, operation, answer):
            found[verb, path, answer.status_code] = errors
    assert found == {}


def test_mounts_are_parameters_where_asked(platform: Platform) -> None:
    query = "sys/internal/specs/openapi?generic_mount_paths=true"
    paths = platform.http("GET", query).json()["paths"]
    write = paths["/{kv_v2_mount_path}/data/{path}"]["post"]
    assert write["operationId"] == "kv-v2-write-secret"
    assert write["summary"].startswith("Writes a new version")
    assert "/{kv_v1_mount_path}/{path}" in paths
    assert "/auth/{approle_mount_path}/role/{role_name}/secret-id/" in paths
    assert not any("watch" in path.lower() for path in paths)
    # What generators name functions after says what is done, wherever there are several ways to it.
    lease = paths["/sys/revoke/{lease_id}"]["post"]["operationId"]
    assert lease == "revoke-lease-at-sys-revoke-lease-id"
    version = paths["/{kv_v2_mount_path}/data/{path}"]["get"]["parameters"][-1]
    assert (version["name"], version["in"]) == ("version", "query")
    assert paths["/sys/health"]["get"]["security"] == []
    assert "security" not in write


def test_mounts_that_nobody_may_see_are_not_described(platform: Platform) -> None:
    policy = 'path "sys/internal/specs/openapi" { capabilities = ["read"] }'
    platform.bao("policy", "write", "describe", "-", input=policy)
    token = platform.bao("token", "create", "-policy=describe", "-field=token").strip()
    shown = json.dumps(platform.http("GET", "sys/internal/specs/openapi", token).json()["paths"])
    assert "/secret/data/{path}" not in shown
    assert "/cubbyhole/{path}" in shown

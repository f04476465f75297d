"""Routes, with the contracts as they are."""

from typing import Any

import pytest

from strongroom.auth.v1 import approle_pb2, policy_pb2, token_pb2, userpass_pb2
from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import cubbyhole_pb2, kv1_pb2, kv2_pb2
from strongroom.options.v1 import options_pb2 as options
from strongroom.seal.v1 import seal_pb2
from strongroom.transit.v1 import material_pb2, signature_pb2
from strongroom_gateway.contract.bodies import parse_body
from strongroom_gateway.contract.routes import RouteTable, path_for
from strongroom_runtime.errors import Kind, ServiceError

MODULES = (
    token_pb2,
    policy_pb2,
    approle_pb2,
    userpass_pb2,
    kv1_pb2,
    kv2_pb2,
    cubbyhole_pb2,
    seal_pb2,
    lease_pb2,
    material_pb2,
    signature_pb2,
)
V2, V1, APPROLE = ("kv", "2"), ("kv", "1"), ("approle", "")
READ, LIST, UPDATE = options.OPERATION_READ, options.OPERATION_LIST, options.OPERATION_UPDATE


@pytest.fixture(scope="module")
def table() -> RouteTable:
    return RouteTable(s for m in MODULES for s in m.DESCRIPTOR.services_by_name.values())


@pytest.mark.parametrize(
    ("mount", "path", "operation", "method", "captures"),
    [
        (V2, "data/a/b", READ, "ReadSecret", {"path": "a/b"}),
        (V2, "data/a", UPDATE, "WriteSecret", {"path": "a"}),
        (V2, "metadata", LIST, "ListSecrets", {}),
        (V2, "metadata/a", LIST, "ListSecrets", {"path": "a"}),
        (V2, "config", UPDATE, "WriteConfig", {}),
        (V1, "data/a", READ, "ReadValue", {"path": "data/a"}),
        (V1, "", LIST, "ListValues", {}),
        (None, "auth/token/create", UPDATE, "CreateToken", {}),
        (None, "auth/token/create/ci", UPDATE, "CreateToken", {"role_name": "ci"}),
        (None, "auth/token/create-orphan", UPDATE, "CreateOrphanToken", {}),
        (None, "sys/policies/acl/a/b", READ, "ReadPolicy", {"name": "a/b"}),
        (APPROLE, "role/app/secret-id", UPDATE, "CreateSecretId", {"role_name": "app"}),
        (APPROLE, "role/app/secret-id", LIST, "ListSecretIds", {"role_name": "app"}),
        (
            APPROLE,
            "role/app/token-ttl",
            READ,
            "ReadRoleSetting",
            {"role_name": "app", "setting": "token-ttl"},
        ),
        (APPROLE, "role/app/role-id", READ, "ReadRoleId", {"role_name": "app"}),
    ],
)
def test_a_path_finds_its_method(
    table: RouteTable, mount: Any, path: str, operation: int, method: str, captures: dict[str, str]
) -> None:
    for _ in range(2):  # the second time from memory
        spec, found = table.match(mount, path, operation)
        assert spec.name.endswith("/" + method)
        assert dict(found) == captures


@pytest.mark.parametrize(
    ("mount", "path", "operation", "kind"),
    [
        (V2, "data", READ, Kind.NOT_FOUND),
        (V2, "nonsense/a", READ, Kind.NOT_FOUND),
        (("nothing", ""), "a", READ, Kind.NOT_FOUND),
        (None, "sys/nonsense", READ, Kind.NOT_FOUND),
        (V2, "delete/a", READ, Kind.UNSUPPORTED),
        (None, "auth/token/create", READ, Kind.UNSUPPORTED),
        (None, "auth/token/create", LIST, Kind.NOT_FOUND),
        (None, "sys/config/auditing/request-headers", LIST, Kind.NOT_FOUND),
    ],
)
def test_what_is_not_there(
    table: RouteTable, mount: Any, path: str, operation: int, kind: Kind
) -> None:
    with pytest.raises(ServiceError) as caught:
        table.match(mount, path, operation)
    assert caught.value.kind is kind


def test_a_grpc_call_has_the_path_of_its_http_twin(table: RouteTable) -> None:
    def path(method: str, message: Any) -> str:
        spec = next(s for name, s in table.methods.items() if name.endswith("/" + method))
        return path_for(spec, message)

    assert path("ReadSecret", kv2_pb2.ReadSecretRequest(path="a/b")) == "data/a/b"
    assert path("ListSecrets", kv2_pb2.ListSecretsRequest(path="a/")) == "metadata/a/"
    assert path("ListSecrets", kv2_pb2.ListSecretsRequest()) == "metadata/"
    assert path("ListValues", kv1_pb2.ListValuesRequest()) == ""
    assert path("CreateToken", token_pb2.CreateTokenRequest()) == "auth/token/create"
    request = token_pb2.CreateTokenRequest(role_name="ci")
    assert path("CreateToken", request) == "auth/token/create/ci"
    with pytest.raises(ServiceError, match="path"):
        path("ReadSecret", kv2_pb2.ReadSecretRequest())


@pytest.mark.parametrize(
    ("mount", "path", "operation", "field"),
    [
        (None, "auth/token/create", UPDATE, "role_name"),
        (V2, "metadata", LIST, "path"),
        (V2, "metadata", options.OPERATION_SCAN, "path"),
        (V2, "detailed-metadata", LIST, "path"),
        (None, "sys/policies/acl", LIST, "prefix"),
        (None, "sys/leases/lookup", LIST, "prefix"),
        (("transit", ""), "restore", UPDATE, "name"),
    ],
)
def test_what_a_path_captures_comes_from_no_body_and_no_query(
    table: RouteTable, mount: Any, path: str, operation: int, field: str
) -> None:
    """Policies judge the path: one for the shorter path is none for what the longer ones stand for."""
    spec, captures = table.match(mount, path, operation)
    plan = spec.request_plan
    body = b'{"%s": "elsewhere"}' % field.encode()
    for given in (
        plan.decode(body, parse_body(body), {}, captures),
        plan.decode(b"", {}, {field: "elsewhere"}, captures),
    ):
        assert given == (spec.request(), [field])
    deeper, captures = table.match(mount, f"{path}/here", operation)
    message, unknown = deeper.request_plan.decode(body, parse_body(body), {}, captures)
    assert (getattr(message, field), unknown) == ("here", [])


def test_what_the_path_may_leave_to_the_body(table: RouteTable) -> None:
    spec, captures = table.match(("transit", ""), "hash", UPDATE)
    body = b'{"algorithm": "sha2-512"}'
    message, unknown = spec.request_plan.decode(body, parse_body(body), {}, captures)
    assert (getattr(message, "algorithm"), unknown) == ("sha2-512", [])  # noqa: B009


def test_a_segment_of_a_path_is_a_source_or_a_number(table: RouteTable) -> None:
    def asked(path: str, body: bytes) -> Any:
        spec, captures = table.match(("transit", ""), path, UPDATE)
        return spec.request_plan.decode(body, parse_body(body), {}, captures)

    five = signature_pb2.RandomRequest(bytes="5")
    for source in ("platform", "seal", "all"):
        assert asked(f"random/{source}", b'{"bytes": 5}') == (five, [])
        from_it = signature_pb2.RandomRequest(source=source, bytes="5")
        assert asked(f"random/{source}/5", b"{}") == (from_it, [])
    assert asked("random/5", b'{"bytes": 6}') == (five, [])


def test_every_public_method_has_one_place(table: RouteTable) -> None:
    assert len(table.methods) > 80
    for spec in table.methods.values():
        assert spec.capability in {"read", "list", "update", "write", "delete", "patch", "scan"}
        assert not (spec.sudo and spec.unauthenticated)

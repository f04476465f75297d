"""Tokens under sys/leases, on both wires, as OpenBao has them."""

import json
from typing import Any

import grpc
import pytest

from strongroom.dbcreds.v1 import lease_pb2, lease_pb2_grpc
from tests.integration.platforms import ROOT, Platform, until


def leases(platform: Platform, prefix: str) -> list[str]:
    answer = platform.http("LIST", f"sys/leases/lookup/{prefix}")
    return list(answer.json()["data"]["keys"]) if answer.status_code == 200 else []


def login(platform: Platform, mount: str, policies: str = "default") -> str:
    """Logs in to a new AppRole mount, or one that is there; returns the token."""
    platform.http("POST", f"sys/auth/{mount}", json={"type": "approle"})
    platform.http(
        "POST", f"auth/{mount}/role/api", json={"token_ttl": "1h", "token_policies": policies}
    )
    role = platform.http("GET", f"auth/{mount}/role/api/role-id").json()["data"]["role_id"]
    made = platform.http("POST", f"auth/{mount}/role/api/secret-id").json()["data"]["secret_id"]
    body = {"role_id": role, "secret_id": made}
    answer = platform.http("POST", f"auth/{mount}/login", None, json=body)
    return str(answer.json()["auth"]["client_token"])


def alive(platform: Platform, token: str) -> bool:
    return platform.http("GET", "auth/token/lookup-self", token).status_code == 200


def test_a_login_is_looked_up_and_revoked_as_a_lease(platform: Platform) -> None:
    token = login(platform, "leased")
    assert leases(platform, "auth/leased") == ["login/"]
    assert "auth/" in leases(platform, "")
    (name,) = leases(platform, "auth/leased/login/")
    lease = {"lease_id": f"auth/leased/login/{name}"}
    shown = platform.http("POST", "sys/leases/lookup", json=lease).json()["data"]
    assert shown["id"] == lease["lease_id"]
    assert (shown["path"], shown["renewable"]) == ("auth/leased/login", True)
    assert (shown["last_renewal"], 3590 < shown["ttl"] <= 3600) == (None, True)
    assert shown["issue_time"] < shown["expire_time"]
    assert platform.http("POST", "sys/leases/lookup", token, json=lease).status_code == 200
    refused = platform.http("POST", "sys/leases/renew", json=lease)
    assert refused.status_code == 400
    assert refused.json()["errors"] == ["tokens cannot be renewed through this endpoint"]
    for _ in range(2):
        assert platform.http("POST", "sys/leases/revoke", json=lease).status_code == 204
        assert not alive(platform, token)
    refused = platform.http("POST", "sys/leases/lookup", json=lease)
    assert (refused.status_code, refused.json()["errors"]) == (400, ["invalid lease"])


def test_the_lease_of_another_token_is_not_told_of(platform: Platform) -> None:
    stranger, token = login(platform, "strangers"), login(platform, "owners")
    (name,) = leases(platform, "auth/owners/login/")
    lease = {"lease_id": f"auth/owners/login/{name}"}
    for path, status in (("lookup", 403), ("renew", 400)):
        answer = platform.http("POST", f"sys/leases/{path}", stranger, json=lease)
        assert answer.status_code == status
        absent = {"lease_id": "auth/owners/login/none"}
        of_none = platform.http("POST", f"sys/leases/{path}", stranger, json=absent)
        assert (of_none.status_code, of_none.json()) == (status, answer.json())
    assert alive(platform, token)


def test_a_token_without_an_end_has_no_expire_time(platform: Platform) -> None:
    body = {"policies": ["root"], "id": "leased-without-end"}
    platform.http("POST", "auth/token/create", json=body)
    shown: list[Any] = []
    for name in leases(platform, "auth/token/create/"):
        lease = {"lease_id": f"auth/token/create/{name}"}
        looked = platform.http("POST", "sys/leases/lookup", json=lease)
        if looked.ok:  # others end meanwhile
            shown.append(looked.json()["data"])
    endless = [each for each in shown if each["expire_time"] is None]
    assert endless
    assert (endless[0]["ttl"], endless[0]["renewable"]) == (0, False)
    lease = {"lease_id": endless[0]["id"]}
    refused = platform.http("POST", "sys/leases/renew", json=lease)
    assert refused.json()["errors"] == ["lease is not renewable"]
    platform.http("POST", "auth/token/revoke", json={"token": "leased-without-end"})


@pytest.mark.parametrize("how", ["revoke-prefix", "revoke-force"])
def test_all_logins_of_a_mount_end_by_its_prefix(platform: Platform, how: str) -> None:
    policy = 'path "auth/token/create" { capabilities = ["update"] }'
    platform.http("PUT", "sys/policies/acl/default-and-create", json={"policy": policy})
    tokens = [login(platform, "prefixed", policies="default-and-create") for _ in range(3)]
    other = login(platform, "prefixed2")
    child = platform.http("POST", "auth/token/create", tokens[0], json={}).json()["auth"]
    answer = platform.http("PUT", f"sys/leases/{how}/auth/prefixed/login")
    assert answer.status_code == 204
    assert not any(alive(platform, each) for each in (*tokens, child["client_token"]))
    assert alive(platform, other)
    until(lambda: not leases(platform, "auth/prefixed/"))
    assert platform.http("LIST", "sys/leases/lookup/auth/prefixed").status_code == 404


def test_the_command_line_and_grpc_do_the_same(platform: Platform) -> None:
    tokens = [login(platform, "both-wires") for _ in range(2)]
    first, second = leases(platform, "auth/both-wires/login/")
    shown = json.loads(
        platform.bao("lease", "lookup", "-format=json", f"auth/both-wires/login/{first}")
    )
    assert shown["data"]["path"] == "auth/both-wires/login"
    platform.bao("lease", "revoke", f"auth/both-wires/login/{first}")
    assert sum(alive(platform, token) for token in tokens) == 1
    with platform.channel() as channel:
        stub: Any = lease_pb2_grpc.LeaseServiceStub(channel)  # type: ignore[arg-type]
        metadata = (("x-vault-token", ROOT),)
        listed = stub.ListLeases(
            lease_pb2.ListLeasesRequest(prefix="auth/both-wires/login"), metadata=metadata
        )
        assert list(listed.keys) == [second]
        lease_id = f"auth/both-wires/login/{second}"
        found = stub.LookupLease(lease_pb2.LookupLeaseRequest(lease_id=lease_id), metadata=metadata)
        assert (found.id, found.path) == (lease_id, "auth/both-wires/login")
        with pytest.raises(grpc.RpcError) as caught:
            stub.RenewLease(lease_pb2.RenewLeaseRequest(lease_id=lease_id), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stub.RevokePrefix(
            lease_pb2.RevokePrefixRequest(prefix="auth/both-wires"), metadata=metadata
        )
    assert not any(alive(platform, token) for token in tokens)


def test_a_login_mount_that_moves_ends_the_tokens_that_it_gave(platform: Platform) -> None:
    token = login(platform, "leaving")
    child = platform.http("POST", "auth/token/create", json={"ttl": "1h"}).json()["auth"]
    body = {"from": "auth/leaving", "to": "auth/arrived"}
    moved = platform.http("POST", "sys/remount", json=body).json()["data"]["migration_id"]
    status = platform.http("GET", f"sys/remount/status/{moved}").json()["data"]
    assert status["migration_info"]["status"] == "success"
    assert not alive(platform, token)
    assert alive(platform, child["client_token"])
    assert leases(platform, "auth/leaving") == []
    role = platform.http("GET", "auth/arrived/role/api/role-id").json()["data"]["role_id"]
    made = platform.http("POST", "auth/arrived/role/api/secret-id").json()["data"]["secret_id"]
    body = {"role_id": role, "secret_id": made}
    again = platform.http("POST", "auth/arrived/login", None, json=body).json()["auth"]
    assert alive(platform, again["client_token"])
    assert leases(platform, "auth/arrived") == ["login/"]


def test_a_login_is_renewed_within_the_bounds_that_its_mount_has_then(platform: Platform) -> None:
    """As in OpenBao: `sys/auth/…/tune` counts for tokens that there are already."""
    platform.http("POST", "sys/auth/tuned", json={"type": "userpass"})
    platform.http("POST", "auth/tuned/users/ann", json={"password": "secret"})
    made = platform.http("POST", "auth/tuned/login/ANN", None, json={"password": "secret"})
    token, accessor = (made.json()["auth"][name] for name in ("client_token", "accessor"))
    config = {"default_lease_ttl": "10m", "max_lease_ttl": "20m"}
    assert platform.http("POST", "sys/auth/tuned/tune", json=config).ok
    for path, body in (
        ("renew-self", {}),
        ("renew", {"token": token}),
        ("renew-accessor", {"accessor": accessor}),
    ):
        for increment, most in ((None, 600), ("1h", 1_200)):
            asked = {**body, **({"increment": increment} if increment else {})}
            by = token if path == "renew-self" else ROOT
            answer = platform.http("POST", f"auth/token/{path}", by, json=asked)
            assert most - 120 < answer.json()["auth"]["lease_duration"] <= most
    platform.http("DELETE", "sys/auth/tuned")


def test_capabilities_are_what_requests_to_a_path_get(platform: Platform) -> None:
    policy = """
    path "auth/folded/users/*" { capabilities = ["read"] }
    path "auth/folded/users/admin" { capabilities = ["deny"] }
    """
    platform.http("POST", "sys/auth/folded", json={"type": "userpass"})
    platform.http("POST", "sys/policies/acl/folded", json={"policy": policy})
    body = {"policies": ["folded"], "ttl": "5m"}
    made = platform.http("POST", "auth/token/create", json=body).json()["auth"]
    path = "auth/folded/users/ADMIN"
    for method, by, named in (
        ("capabilities-self", made["client_token"], {}),
        ("capabilities", ROOT, {"token": made["client_token"]}),
        ("capabilities-accessor", ROOT, {"accessor": made["accessor"]}),
    ):
        told = platform.http("POST", f"sys/{method}", by, json={"paths": [path], **named})
        assert told.json()["data"] == {path: ["deny"], "capabilities": ["deny"]}
    assert platform.http("GET", path, made["client_token"]).status_code == 403
    assert platform.http("GET", "auth/folded/users/Ann", made["client_token"]).status_code == 404
    platform.http("DELETE", "sys/auth/folded")

"""The `bao` command line."""

import json
from pathlib import Path

import pytest

from tests.integration.platforms import ROOT, Platform, start, until


def test_status(platform: Platform) -> None:
    status = json.loads(platform.bao("status", "-format=json"))
    assert (status["initialized"], status["sealed"], status["storage_type"]) == (
        True,
        False,
        "etcd",
    )


def test_versioned_secrets(platform: Platform) -> None:
    platform.bao("kv", "put", "secret/bao/app", "user=a", "pass=hunter2")
    platform.bao("kv", "patch", "secret/bao/app", "user=b")
    assert platform.bao("kv", "get", "-field=pass", "secret/bao/app") == "hunter2"
    shown = json.loads(platform.bao("kv", "get", "-format=json", "secret/bao/app"))
    assert shown["data"]["data"] == {"user": "b", "pass": "hunter2"}
    assert shown["data"]["metadata"]["version"] == 2
    assert json.loads(platform.bao("kv", "list", "-format=json", "secret/bao")) == ["app"]
    platform.bao("kv", "delete", "secret/bao/app")
    assert "hunter2" not in platform.run_bao("kv", "get", "secret/bao/app").stdout
    platform.bao("kv", "undelete", "-versions=2", "secret/bao/app")
    platform.bao("kv", "rollback", "-version=1", "secret/bao/app")
    assert platform.bao("kv", "get", "-field=user", "secret/bao/app") == "a"
    platform.bao("kv", "metadata", "put", "-custom-metadata=owner=ann", "secret/bao/app")
    metadata = json.loads(platform.bao("kv", "metadata", "get", "-format=json", "secret/bao/app"))
    assert metadata["data"]["custom_metadata"] == {"owner": "ann"}
    assert platform.run_bao("kv", "put", "-cas=1", "secret/bao/app", "x=1").returncode == 2
    platform.bao("kv", "destroy", "-versions=1", "secret/bao/app")
    platform.bao("kv", "metadata", "delete", "secret/bao/app")
    assert platform.run_bao("kv", "list", "secret/bao").returncode == 2


def test_metadata_for_a_version_of_it(platform: Platform) -> None:
    path = "secret/metadata/checked"
    platform.bao("write", path, "metadata_cas=0", "metadata_cas_required=true")
    refused = platform.run_bao("kv", "metadata", "patch", "-max-versions=3", "secret/checked")
    assert "metadata check-and-set parameter required for this call" in refused.stderr
    merge = {"Content-Type": "application/merge-patch+json"}
    for number, status in ((0, 400), (1, 204), (1, 400)):
        change = {"max_versions": 4, "metadata_cas": number}
        answer = platform.http("PATCH", path, json=change, headers=merge)
        assert answer.status_code == status
    shown = json.loads(platform.bao("kv", "metadata", "get", "-format=json", "secret/checked"))
    assert shown["data"]["current_metadata_version"] == 2
    assert (shown["data"]["max_versions"], shown["data"]["metadata_cas_required"]) == (4, True)
    platform.bao("write", "secret/config", "metadata_cas_required=true")
    warned = platform.http("POST", path, json={"metadata_cas": 2, "metadata_cas_required": False})
    assert warned.status_code == 200
    assert "mandated by backend config" in warned.json()["warnings"][0]
    platform.bao("write", "secret/config", "metadata_cas_required=false")
    platform.bao("kv", "metadata", "delete", "secret/checked")


def test_unversioned_secrets_and_an_upgrade(platform: Platform) -> None:
    platform.bao("secrets", "enable", "-path=old", "-version=1", "kv")
    platform.bao("kv", "put", "old/a", "x=1")
    assert platform.bao("kv", "get", "-field=x", "old/a") == "1"
    platform.bao("kv", "enable-versioning", "old/")
    assert platform.bao("kv", "get", "-field=x", "old/a") == "1"
    platform.bao("kv", "put", "-cas=1", "old/a", "x=2")
    platform.bao("secrets", "tune", "-max-lease-ttl=3h", "-default-lease-ttl=1h", "old/")
    platform.bao("secrets", "tune", "-description=aged", "old/")  # sends empty texts for the rest
    tuning = json.loads(platform.bao("read", "-format=json", "sys/mounts/old/tune"))["data"]
    assert (tuning["default_lease_ttl"], tuning["max_lease_ttl"]) == (3600, 10800)
    platform.bao("secrets", "move", "old/", "older/")
    assert platform.bao("kv", "get", "-field=x", "older/a") == "2"
    platform.bao("secrets", "disable", "older")
    assert "older/" not in json.loads(platform.bao("secrets", "list", "-format=json"))


def test_tokens_and_policies(platform: Platform) -> None:
    platform.bao(
        "policy",
        "write",
        "readers",
        "-",
        input='path "secret/data/p/*" { capabilities = ["read"] }',
    )
    assert "readers" in platform.bao("policy", "list")
    platform.bao("kv", "put", "secret/p/x", "v=1")
    made = json.loads(
        platform.bao("token", "create", "-format=json", "-policy=readers", "-ttl=1h")
    )["auth"]
    token = made["client_token"]
    assert platform.bao("kv", "get", "-field=v", "secret/p/x", token=token) == "1"
    assert platform.run_bao("kv", "put", "secret/p/x", "v=2", token=token).returncode == 2
    assert platform.bao("token", "capabilities", "secret/data/p/x", token=token).strip() == "read"
    platform.bao("token", "renew", "-increment=30m", token, token=ROOT)
    looked_up = json.loads(platform.bao("token", "lookup", "-format=json", token=token))
    assert looked_up["data"]["id"] == token
    platform.bao("token", "revoke", "-accessor", made["accessor"])
    assert platform.run_bao("token", "lookup", token=token).returncode == 2
    platform.bao("policy", "delete", "readers")


def test_logins(platform: Platform) -> None:
    platform.bao("auth", "enable", "userpass")
    platform.bao("write", "auth/userpass/users/ann", "password=pw", "policies=default")
    login = platform.bao(
        "login", "-format=json", "-method=userpass", "username=ann", "password=pw", token=""
    )
    assert json.loads(login)["auth"]["metadata"] == {"username": "ann"}
    assert (
        platform.run_bao(
            "login", "-method=userpass", "username=ann", "password=no", token=""
        ).returncode
        == 2
    )
    platform.bao("auth", "enable", "approle")
    platform.bao("write", "auth/approle/role/ci", "token_policies=default", "token_ttl=20m")
    role = platform.bao("read", "-field=role_id", "auth/approle/role/ci/role-id")
    secret = platform.bao("write", "-f", "-field=secret_id", "auth/approle/role/ci/secret-id")
    token = platform.bao(
        "write",
        "-field=token",
        "auth/approle/login",
        f"role_id={role}",
        f"secret_id={secret}",
        token="",
    )
    assert "approle" in platform.bao("token", "lookup", token=token)
    platform.bao("auth", "disable", "approle")
    assert platform.run_bao("token", "lookup", token=token).returncode == 2
    platform.bao("auth", "disable", "userpass")


def test_a_wrapped_secret_id_is_taken_back_by_its_accessor(platform: Platform) -> None:
    platform.http("POST", "sys/auth/wrapped-ids", json={"type": "approle"})
    role = "auth/wrapped-ids/role/app"
    platform.http("POST", role, json={"token_policies": "default"})
    headers = {"X-Vault-Wrap-TTL": "60s"}
    wrapped = platform.http("POST", f"{role}/secret-id", headers=headers).json()["wrap_info"]
    body = {"secret_id_accessor": wrapped["wrapped_accessor"]}
    lookup = f"{role}/secret-id-accessor/lookup"
    assert platform.http("POST", lookup, json=body).status_code == 200
    destroy = f"{role}/secret-id-accessor/destroy"
    assert platform.http("POST", destroy, json=body).status_code == 204
    opened = platform.http("POST", "sys/wrapping/unwrap", json={"token": wrapped["token"]}).json()
    assert opened["data"]["secret_id_accessor"] == wrapped["wrapped_accessor"]
    platform.http("DELETE", "sys/auth/wrapped-ids")


def test_a_wrapped_answer_is_moved_by_those_who_may_alone(platform: Platform) -> None:
    headers = {"X-Vault-Wrap-TTL": "60"}
    wrapped = platform.http("POST", "sys/wrapping/wrap", json={"v": 1}, headers=headers)
    wrapping = {"token": wrapped.json()["wrap_info"]["token"]}
    limited = platform.http("POST", "auth/token/create", json={"policies": ["default"]}).json()
    # None moves it: to hold it is enough to open it, not to keep others from opening it.
    for token in (None, wrapping["token"], limited["auth"]["client_token"]):
        refused = platform.http("POST", "sys/wrapping/rewrap", token, json=wrapping)
        assert refused.status_code == 403, refused.text
    assert platform.http("POST", "sys/wrapping/rewrap", wrapping["token"]).status_code == 403
    moved = platform.http("POST", "sys/wrapping/rewrap", json=wrapping).json()
    again = {"token": moved["wrap_info"]["token"]}
    assert platform.http("POST", "sys/wrapping/unwrap", json=wrapping).status_code == 400
    opened = platform.http("POST", "sys/wrapping/unwrap", json=again)
    assert opened.json()["data"] == {"v": 1}


def test_wrapping_opens_once(platform: Platform) -> None:
    platform.bao("kv", "put", "secret/wrapped", "v=1")
    wrapped = platform.bao("kv", "get", "-wrap-ttl=60s", "-format=json", "secret/wrapped")
    wrapping = json.loads(wrapped)["wrap_info"]["token"]
    opened = json.loads(platform.bao("unwrap", "-format=json", wrapping))
    assert opened["data"]["data"] == {"v": "1"}
    assert platform.run_bao("unwrap", wrapping).returncode == 2
    wrapped = platform.bao("kv", "get", "-wrap-ttl=60s", "-format=json", "secret/wrapped")
    wrapping = json.loads(wrapped)["wrap_info"]["token"]
    assert "secret/data/wrapped" in platform.bao("token", "lookup", wrapping)
    platform.bao("token", "revoke", wrapping)
    assert platform.run_bao("unwrap", wrapping).returncode == 2
    assert platform.run_bao("token", "lookup", wrapping).returncode == 2


def test_older_clients_open_an_answer_by_reading_it(platform: Platform) -> None:
    """As the Ruby client does: with the token at `cubbyhole/response`."""
    platform.http("POST", "cubbyhole/response", json={"own": "document"})
    headers = {"X-Vault-Wrap-TTL": "60"}
    wrapped = platform.http("POST", "sys/wrapping/wrap", json={"v": "hidden"}, headers=headers)
    wrapping = wrapped.json()["wrap_info"]["token"]
    assert platform.http("GET", "cubbyhole/other", wrapping).status_code == 403
    assert platform.http("POST", "cubbyhole/response", wrapping, json={"v": 2}).status_code == 403
    opened = platform.http("GET", "cubbyhole/response", wrapping).json()
    assert json.loads(opened["data"]["response"])["data"] == {"v": "hidden"}
    assert "deprecated" in opened["warnings"][0]
    assert platform.http("GET", "cubbyhole/response", wrapping).status_code == 403
    assert platform.http("GET", "cubbyhole/response").json()["data"] == {"own": "document"}
    entries = platform.audit_log.read_text()
    assert wrapping not in entries
    assert "hidden" not in entries
    platform.http("DELETE", "cubbyhole/response")


def test_audit_devices(platform: Platform) -> None:
    platform.bao("audit", "enable", "-path=second", "file", "file_path=second.log")
    platform.bao("kv", "put", "secret/audited", "v=audited-value")
    second = platform.audit_log.parent / "second.log"
    assert "secret/data/audited" in second.read_text()
    hashed = platform.bao("write", "-field=hash", "sys/audit-hash/second", "input=audited-value")
    assert hashed in second.read_text()
    assert "audited-value" not in second.read_text()
    refused = platform.run_bao(
        "audit", "enable", "-path=bad", "file", "file_path=/tmp/elsewhere.log"
    )
    assert "file_path" in refused.stderr
    assert not Path("/tmp/elsewhere.log").exists()
    platform.bao("audit", "disable", "second")


def test_operator(platform: Platform) -> None:
    before = json.loads(platform.bao("operator", "key-status", "-format=json"))["term"]
    platform.bao("operator", "rotate")
    assert json.loads(platform.bao("operator", "key-status", "-format=json"))["term"] == before + 1
    platform.bao("kv", "put", "secret/after-rotation", "v=1")


@pytest.mark.parametrize("topology", ["all", "split"])
def test_a_shamir_seal_from_its_first_day(tmp_path: Path, topology: str) -> None:
    with start(tmp_path / "p", topology, "--seal=shamir", command="server") as platform:
        assert platform.run_bao("status").returncode == 2
        made = json.loads(
            platform.bao("operator", "init", "-format=json", "-key-shares=3", "-key-threshold=2")
        )
        root, keys = made["root_token"], made["unseal_keys_b64"]
        assert platform.http("GET", "secret/data/x", root).status_code == 503
        for key in keys[:2]:
            platform.bao("operator", "unseal", key)
        platform.bao("secrets", "enable", "-path=secret", "-version=2", "kv", token=root)
        platform.bao("kv", "put", "secret/x", "v=1", token=root)
        log = platform.audit_log
        platform.bao("audit", "enable", "file", f"file_path={log}", token=root)
        platform.bao("operator", "seal", token=root)
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        about = [e["type"] for e in entries if e.get("request", {}).get("path") == "sys/seal"]
        assert about == ["request"]
        answer = platform.http("GET", "secret/data/x", root)
        assert (answer.status_code, answer.json()) == (503, {"errors": ["Vault is sealed"]})
        health = platform.http("GET", "sys/health", None)
        assert (health.status_code, health.json()["standby"]) == (503, True)
        assert health.json()["replication_dr_mode"] == "unknown"
        # That it was sealed is told to nobody whose token cannot be checked.
        assert platform.http("POST", "sys/seal", None).status_code == 503
        assert platform.serves("strongroom.seal.v1.SealService")
        assert not platform.serves("strongroom.kv.v1.KvV2Service")
        assert not platform.serves()
        for key in keys[1:]:
            platform.bao("operator", "unseal", key)
        until(platform.serves)
        assert platform.bao("kv", "get", "-field=v", "secret/x", token=root) == "1"


def test_development_opens_a_shamir_seal_with_the_share_that_it_shows(tmp_path: Path) -> None:
    with start(tmp_path, "all", "--seal=shamir") as platform:
        platform.bao("kv", "put", "secret/x", "v=1")
        platform.bao("operator", "seal")
        platform.bao("operator", "unseal", *platform.unseal_keys)
        assert platform.bao("kv", "get", "-field=v", "secret/x") == "1"


def test_path_help(platform: Platform) -> None:
    assert "data/{path}" in platform.bao("path-help", "secret")
    assert "/sys/mounts/{path}/tune" in platform.bao("path-help", "sys")
    assert "/auth/token/lookup-self" in platform.bao("path-help", "auth/token")
    text = platform.bao("path-help", "secret/data/app")
    assert "Writes a new version" in text
    assert "type (string)" in platform.bao("path-help", "sys/audit/file")
    # Whoever has a token may ask, whatever its policies; nobody else, and only where something is.
    token = platform.bao("token", "create", "-policy=default", "-field=token").strip()
    assert "DELETE" in platform.bao("path-help", "secret/data/app", token=token)
    for asked, code in ((None, 403), ("srs.unknown", 403)):
        assert platform.http("GET", "secret/data/app?help=1", token=asked).status_code == code
    assert platform.http("GET", "nowhere/at/all?help=1").status_code == 404
    assert platform.http("GET", "secret/nowhere?help=1").status_code == 404


def test_a_token_is_looked_up_by_reading_and_by_writing(platform: Platform) -> None:
    made = platform.http("POST", "auth/token/create", json={"policies": ["default"]}).json()["auth"]
    token, other = made["client_token"], {"token": made["client_token"]}
    for method, path, by, body in (
        ("GET", "auth/token/lookup-self", token, None),
        ("POST", "auth/token/lookup", ROOT, other),
        ("GET", f"auth/token/lookup?token={token}", ROOT, None),
    ):
        shown = platform.http(method, path, by, json=body).json()["data"]
        assert (shown["id"], shown["accessor"]) == (token, made["accessor"])
    for method, path in (("GET", "auth/token/lookup"), ("POST", "auth/token/lookup-self")):
        assert platform.http(method, path).json()["data"]["id"] == ROOT
        assert platform.http(method, path, token).status_code == 403


def test_a_policy_ends(platform: Platform) -> None:
    rule = 'path "secret/data/ending" { capabilities = ["read"] }'
    policy = platform.http("POST", "sys/policies/acl/ending", json={"policy": rule, "ttl": "2h"})
    assert policy.status_code == 204
    platform.bao("kv", "put", "secret/ending", "v=1")
    token = platform.bao("token", "create", "-policy=ending", "-field=token")
    assert platform.http("GET", "secret/data/ending", token).status_code == 200
    shown = platform.http("GET", "sys/policies/acl/ending").json()["data"]
    assert shown["expiration"] > shown["modified"]
    platform.bao("write", "sys/policies/acl/ending", f"policy={rule}", "ttl=2s")
    until(lambda: platform.http("GET", "secret/data/ending", token).status_code == 403)
    assert platform.http("GET", "sys/policies/acl/ending").status_code == 404
    assert "ending" not in json.loads(platform.bao("policy", "list", "-format=json"))


def test_what_operators_ask_for(platform: Platform) -> None:
    assert "kv" in platform.bao("plugin", "list", "secret")
    assert "userpass" in platform.bao("plugin", "info", "auth", "userpass")
    assert "Success" in platform.bao("operator", "step-down")
    for name in ("team/a", "team/b"):
        platform.bao("policy", "write", name, "-", input='path "a" { capabilities = ["read"] }')
    listed = platform.bao("list", "-format=json", "sys/policies/acl/team")
    assert json.loads(listed) == ["team/a", "team/b"]
    detailed = platform.http("LIST", "sys/policies/detailed/acl/team").json()["data"]["key_info"]
    assert detailed["team/a"]["version"] == 1
    tokens = platform.bao("read", "-format=json", "sys/internal/counters/tokens")
    assert json.loads(tokens)["data"]["counters"]["service_tokens"]["total"] >= 1
    entities = platform.http("GET", "sys/internal/counters/entities").json()
    assert entities["data"]["counters"] == {"entities": {"total": 0}}


def test_locked_users_are_unlocked(platform: Platform) -> None:
    platform.bao("auth", "enable", "-path=locks", "userpass")
    platform.bao("write", "auth/locks/users/ann", "password=right")
    for _ in range(5):
        platform.http("POST", "auth/locks/login/ann", None, json={"password": "wrong"})
    right = {"password": "right"}
    locked = platform.http("POST", "auth/locks/login/ann", None, json=right)
    assert (locked.status_code, locked.json()) == (403, {"errors": ["permission denied"]})
    accessor = platform.http("GET", "sys/auth/locks").json()["data"]["accessor"]
    found = platform.bao("read", "-format=json", "sys/locked-users", f"mount_accessor={accessor}")
    (namespace,) = json.loads(found)["data"]["by_namespace"]
    assert namespace["mount_accessors"] == [
        {"mount_accessor": accessor, "counts": 1, "alias_identifiers": ["ann"]}
    ]
    platform.bao("write", "-f", f"sys/locked-users/{accessor}/unlock/ann")
    assert platform.http("POST", "auth/locks/login/ann", None, json=right).status_code == 200
    assert platform.http("GET", "sys/locked-users").json()["data"]["total"] == 0
    platform.bao("auth", "disable", "locks")


def test_a_root_token_is_made_with_shares(platform: Platform) -> None:
    started = json.loads(platform.bao("operator", "generate-root", "-init", "-format=json"))
    assert "0/1" in platform.bao("operator", "generate-root", "-status")
    done = platform.bao(
        "operator", "generate-root", f"-nonce={started['nonce']}", "-format=json", "-",
        input=platform.unseal_keys[0],
    )  # fmt: skip
    encoded = json.loads(done)["encoded_token"]
    made = platform.bao(
        "operator", "generate-root", f"-decode={encoded}", f"-otp={started['otp']}"
    ).strip()
    assert "root" in platform.bao("token", "lookup", token=made)
    platform.bao("token", "revoke", "-self", token=made)
    platform.bao("operator", "generate-root", "-init")
    platform.bao("operator", "generate-root", "-cancel")


def test_a_hint_where_data_was_forgotten(platform: Platform) -> None:
    read = platform.run_bao("read", "secret/app")
    assert "'bao kv get'" in read.stderr
    platform.bao("kv", "put", "secret/gone", "a=1")
    platform.bao("kv", "delete", "secret/gone")
    shown = platform.run_bao("kv", "get", "-format=json", "secret/gone")
    assert json.loads(shown.stdout)["data"]["metadata"]["deletion_time"]

"""hvac, the Python client."""

import hvac.exceptions
import pytest

from tests.integration.platforms import Platform


def test_system(platform: Platform) -> None:
    client = platform.hvac()
    assert client.is_authenticated()
    assert client.sys.is_initialized()
    assert not client.sys.is_sealed()
    assert client.sys.read_health_status(method="GET")["initialized"]
    assert "secret/" in client.sys.list_mounted_secrets_engines()["data"]
    assert "token/" in client.sys.list_auth_methods()["data"]
    assert "file/" in client.sys.list_enabled_audit_devices()["data"]
    client.sys.enable_secrets_engine("kv", path="hv", options={"version": "2"})
    client.sys.tune_mount_configuration("hv", default_lease_ttl="1h")
    assert client.sys.read_mount_configuration("hv")["data"]["default_lease_ttl"] == 3600
    client.sys.move_backend("hv", "hv2")
    client.sys.disable_secrets_engine("hv2")


def test_secrets(platform: Platform) -> None:
    kv = platform.hvac().secrets.kv.v2
    document = {"n": 18446744073709551617, "nested": {"a": [1, None, "ü"]}}
    kv.create_or_update_secret("hv/a", document, cas=0)
    assert kv.read_secret_version("hv/a", raise_on_deleted_version=True)["data"]["data"] == document
    with pytest.raises(hvac.exceptions.InvalidRequest, match="check-and-set"):
        kv.create_or_update_secret("hv/a", {}, cas=0)
    kv.patch("hv/a", {"n": 1})
    assert kv.list_secrets("hv")["data"]["keys"] == ["a"]
    kv.delete_latest_version_of_secret("hv/a")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("hv/a", raise_on_deleted_version=True)
    kv.undelete_secret_versions("hv/a", [2])
    kv.destroy_secret_versions("hv/a", [1])
    assert kv.read_secret_metadata("hv/a")["data"]["versions"]["1"]["destroyed"]
    kv.delete_metadata_and_all_versions("hv/a")


def test_tokens(platform: Platform) -> None:
    client = platform.hvac()
    client.sys.create_or_update_policy("hv", 'path "secret/*" { capabilities = ["read"] }')
    assert client.sys.read_policy("hv")["name"] == "hv"
    made = client.auth.token.create(policies=["hv"], ttl="1h", wrap_ttl="60s")
    opened = client.sys.unwrap(made["wrap_info"]["token"])
    token = opened["auth"]["client_token"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="wrapping token is not valid"):
        client.sys.unwrap(made["wrap_info"]["token"])
    made = client.auth.token.create(policies=["hv"], ttl="1h", wrap_ttl="60s")["wrap_info"]
    known = client.auth.token.lookup_accessor(made["accessor"])["data"]
    assert (known["policies"], known["path"]) == (["response-wrapping"], "auth/token/create")
    client.auth.token.revoke_accessor(made["accessor"])
    with pytest.raises(hvac.exceptions.InvalidRequest, match="wrapping token is not valid"):
        client.sys.unwrap(made["token"])
    assert platform.hvac(token).auth.token.renew_self()["auth"]["lease_duration"] == 3600
    with pytest.raises(hvac.exceptions.Forbidden):
        platform.hvac(token).secrets.kv.v2.create_or_update_secret("x", {})
    client.auth.token.create_or_update_role("hv", allowed_policies="hv", orphan=True)
    assert client.auth.token.create(role_name="hv")["auth"]["orphan"]
    rule = 'path "auth/token/create-orphan" { capabilities = ["update"] }'
    client.sys.create_or_update_policy("hv-orphans", rule)
    maker = platform.hvac(client.auth.token.create(policies=["hv-orphans"])["auth"]["client_token"])
    assert maker.auth.token.create_orphan(policies=["hv-orphans"])["auth"]["orphan"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        maker.auth.token.create_orphan(policies=["hv"])
    with pytest.raises(hvac.exceptions.Forbidden):
        maker.auth.token.create(policies=["hv-orphans"], no_parent=True)
    assert client.auth.token.list_accessors()["data"]["keys"]
    old = {"period": "1m", "bound_cidrs": "127.0.0.1", "token_period": "2m"}
    warned = platform.http("POST", "auth/token/roles/hv-old", json=old).json()["warnings"]
    assert warned == [
        "Both 'token_period' and deprecated 'period' value supplied, ignoring the deprecated value"
    ]
    role = client.auth.token.read_role("hv-old")["data"]
    assert (role["period"], role["token_period"], role["allowed_entity_aliases"]) == (0, 120, None)
    assert role["bound_cidrs"] == role["token_bound_cidrs"] == ["127.0.0.1"]
    client.auth.token.delete_role("hv-old")
    client.auth.token.revoke(token)
    with pytest.raises(hvac.exceptions.Forbidden):
        platform.hvac(token).auth.token.lookup_self()
    client.sys.delete_policy("hv")


def test_logins(platform: Platform) -> None:
    client = platform.hvac()
    client.sys.enable_auth_method("approle", path="hvrole")
    approle = client.auth.approle
    approle.create_or_update_approle("web", token_policies=["default"], mount_point="hvrole")
    role = approle.read_role_id("web", mount_point="hvrole")["data"]["role_id"]
    secret = approle.generate_secret_id("web", metadata={"k": "v"}, mount_point="hvrole")["data"]
    login = approle.login(role, secret["secret_id"], use_token=False, mount_point="hvrole")
    assert login["auth"]["metadata"] == {"role_name": "web", "k": "v"}
    accessor = secret["secret_id_accessor"]
    found = approle.read_secret_id_accessor("web", accessor, mount_point="hvrole")
    assert found["data"]["secret_id_accessor"] == accessor
    path = "auth/hvrole/role/web/secret-id-accessor"
    assert (
        platform.http("DELETE", f"{path}/destroy?secret_id_accessor={accessor}").status_code == 204
    )
    with pytest.raises(hvac.exceptions.InvalidPath):
        approle.read_secret_id_accessor("web", accessor, mount_point="hvrole")
    client.sys.disable_auth_method("hvrole")
    client.sys.enable_auth_method("userpass", path="hvpeople")
    client.auth.userpass.create_or_update_user("bob", "pw", mount_point="hvpeople")
    old = {"token_strictly_bind_ip": True, "ttl": "1m", "max_ttl": "2m"}
    assert platform.http("POST", "auth/hvpeople/users/bob", json=old).status_code == 204
    bob = client.auth.userpass.login("bob", "pw", use_token=False, mount_point="hvpeople")["auth"]
    shown = platform.hvac(bob["client_token"]).auth.token.lookup_self()["data"]
    assert (shown["bound_cidrs"], shown["creation_ttl"]) == (["127.0.0.1"], 60)
    for _ in range(5):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            client.auth.userpass.login("Bob", "no", use_token=False, mount_point="hvpeople")
    with pytest.raises(hvac.exceptions.Forbidden):
        client.auth.userpass.login("bob", "pw", use_token=False, mount_point="hvpeople")
    client.sys.disable_auth_method("hvpeople")

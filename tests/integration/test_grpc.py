"""A client generated from the contracts, over TLS."""

import importlib
import json
import pkgutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from strongroom.auth.v1 import (
    approle_pb2,
    approle_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    token_pb2,
    token_pb2_grpc,
    userpass_pb2,
    userpass_pb2_grpc,
)
from strongroom.kv.v1 import kv1_pb2, kv1_pb2_grpc, kv2_pb2, kv2_pb2_grpc
from strongroom.options.v1 import options_pb2
from strongroom.sys.v1 import mounts_pb2, mounts_pb2_grpc, wrapping_pb2, wrapping_pb2_grpc
from strongroom.transit.v1 import cipher_pb2, stream_pb2, stream_pb2_grpc
from tests.integration.platforms import ROOT, Platform, until

AS_ROOT = (("x-vault-token", ROOT),)


def code_of(error: Any) -> grpc.StatusCode:
    """Returns the status of a failed call."""
    code: grpc.StatusCode = error.code()
    return code


def stub(kind: Any, channel: grpc.Channel | grpc.aio.Channel) -> Any:
    """Returns a client; the type stubs know the asynchronous ones alone."""
    return kind(channel)


def test_secrets_and_policies_over_the_same_decisions(platform: Platform) -> None:
    with platform.channel() as channel:
        kv, tokens = (
            stub(kv2_pb2_grpc.KvV2ServiceStub, channel),
            stub(token_pb2_grpc.TokenServiceStub, channel),
        )
        policies = stub(policy_pb2_grpc.PolicyServiceStub, channel)
        document = b'{"n":18446744073709551617}'
        write = kv2_pb2.WriteSecretRequest(mount="secret", path="grpc/a", data=document)
        version = kv.WriteSecret(write, metadata=AS_ROOT).metadata.version
        text = 'path "secret/data/grpc/*" { capabilities = ["read"] }'
        policies.WritePolicy(
            policy_pb2.WritePolicyRequest(name="grpc", policy=text), metadata=AS_ROOT
        )
        parameters = token_pb2.TokenParameters(policies=["grpc"], ttl=600)
        made = tokens.CreateToken(
            token_pb2.CreateTokenRequest(parameters=parameters), metadata=AS_ROOT
        )
        reader = (("authorization", f"Bearer {made.auth.client_token}"),)
        read = kv.ReadSecret(
            kv2_pb2.ReadSecretRequest(mount="secret/", path="grpc/a"), metadata=reader
        )
        assert (read.data, read.metadata.version) == (document, version)
        with pytest.raises(grpc.RpcError) as caught:
            kv.WriteSecret(write, metadata=reader)
        assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED
        # What one wire writes the other reads.
        answer = platform.http("GET", "secret/data/grpc/a")
        assert b'"data":{"n":18446744073709551617}' in answer.content


def test_wrapping_over_grpc(platform: Platform) -> None:
    with platform.channel() as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        write = kv2_pb2.WriteSecretRequest(mount="secret", path="grpc/w", data=b'{"v":1}')
        kv.WriteSecret(write, metadata=AS_ROOT)
        response, call = kv.ReadSecret.with_call(
            kv2_pb2.ReadSecretRequest(mount="secret", path="grpc/w"),
            metadata=(*AS_ROOT, ("x-vault-wrap-ttl", "60")),
        )
        assert response == kv2_pb2.ReadSecretResponse()
        trailing = dict(call.trailing_metadata() or ())
        info = wrapping_pb2.WrapInfo.FromString(trailing["strongroom-wrap-info-bin"])
        assert info.creation_path == "secret/data/grpc/w"
        wrapping = stub(wrapping_pb2_grpc.WrappingServiceStub, channel)
        opened = wrapping.Unwrap(wrapping_pb2.UnwrapRequest(token=info.token))
        assert json.loads(opened.document)["data"]["data"] == {"v": 1}


@pytest.mark.parametrize(
    ("request_", "metadata", "code"),
    [
        (kv2_pb2.ReadSecretRequest(mount="secret", path="x"), (), grpc.StatusCode.PERMISSION_DENIED),
        (kv2_pb2.ReadSecretRequest(mount="none", path="x"), AS_ROOT, grpc.StatusCode.INVALID_ARGUMENT),
        (kv2_pb2.ReadSecretRequest(mount="secret"), AS_ROOT, grpc.StatusCode.INVALID_ARGUMENT),
        (kv2_pb2.ReadSecretRequest(mount="secret", path="a/../b"), AS_ROOT, grpc.StatusCode.INVALID_ARGUMENT),
        (kv2_pb2.ReadSecretRequest(mount="secret", path="a" * 70_000), (), grpc.StatusCode.INVALID_ARGUMENT),
        (kv2_pb2.ReadSecretRequest(mount="secret", path="absent"), AS_ROOT, grpc.StatusCode.NOT_FOUND),
    ],
)  # fmt: skip
def test_errors_have_canonical_codes(
    platform: Platform, request_: kv2_pb2.ReadSecretRequest, metadata: object, code: object
) -> None:
    with platform.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stub(kv2_pb2_grpc.KvV2ServiceStub, channel).ReadSecret(request_, metadata=metadata)
        assert code_of(caught.value) is code


@pytest.mark.parametrize("mount", ["secret", "none", "cubbyhole", "sys"])
@pytest.mark.parametrize("token", ["", "none", "powerless"])
def test_only_who_may_go_there_learns_whether_a_mount_exists(
    platform: Platform, mount: str, token: str
) -> None:
    if token == "powerless":
        made = platform.http(
            "POST", "auth/token/create", json={"policies": ["none"], "no_default_policy": True}
        )
        token = made.json()["auth"]["client_token"]
    metadata = (("x-vault-token", token),) if token else ()
    with platform.channel() as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        streams = stub(stream_pb2_grpc.TransitStreamServiceStub, channel)
        batches = [stream_pb2.EncryptStreamRequest(mount=mount, name="k")]
        request = kv2_pb2.ReadSecretRequest(mount=mount, path="x")
        watched = kv2_pb2.WatchSecretsRequest(mount=mount)
        asks: tuple[Callable[[], Any], ...] = (
            lambda: kv.ReadSecret(request, metadata=metadata),
            lambda: next(kv.WatchSecrets(watched, metadata=metadata)),
            lambda: next(streams.EncryptStream(iter(batches), metadata=metadata)),
        )
        for ask in asks:
            with pytest.raises(grpc.RpcError) as caught:
                ask()
            error: Any = caught.value
            assert (error.code(), error.details()) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "permission denied",
            )
    # As over HTTP.
    assert platform.http("GET", f"{mount}/data/x", token=token).status_code == 403


def test_a_login_where_nothing_is_mounted_wants_a_token_first(platform: Platform) -> None:
    login = approle_pb2.LoginAppRoleRequest(mount="auth/none", role_id="r", secret_id="s")
    with platform.channel() as channel:
        approle = stub(approle_pb2_grpc.AppRoleServiceStub, channel)
        with pytest.raises(grpc.RpcError) as caught:
            approle.LoginAppRole(login)
        assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as caught:
            approle.LoginAppRole(login, metadata=AS_ROOT)
        assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT
    body = {"role_id": "r", "secret_id": "s"}
    assert platform.http("POST", "auth/none/login", token="", json=body).status_code == 403


def _token(platform: Platform, rule: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of a caller with one rule."""
    policy = f"grpc-{uuid.uuid4()}"
    platform.http("POST", f"sys/policies/acl/{policy}", json={"policy": rule})
    made = platform.http(
        "POST", "auth/token/create", json={"policies": [policy], "no_default_policy": True}
    )
    return (("x-vault-token", made.json()["auth"]["client_token"]),)


def test_policies_bound_what_is_written_over_grpc_as_over_http(platform: Platform) -> None:
    platform.http("POST", "sys/mounts/bounded", json={"type": "kv", "options": {"version": "1"}})
    changes = '{ capabilities = ["create", "update"]'
    with platform.channel() as channel:
        kv1 = stub(kv1_pb2_grpc.KvV1ServiceStub, channel)
        kv2 = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)

        def write_1(document: bytes, rule: str) -> None:
            request = kv1_pb2.WriteValueRequest(mount="bounded", path="a", data=document)
            metadata = _token(platform, f'path "bounded/*" {changes}\n {rule} }}')
            kv1.WriteValue(request, metadata=metadata)

        def write_2(document: bytes, rule: str) -> None:
            request = kv2_pb2.WriteSecretRequest(mount="secret", path="bounded", data=document)
            metadata = _token(platform, f'path "secret/data/*" {changes}\n {rule} }}')
            kv2.WriteSecret(request, metadata=metadata)

        write_1(b'{"user":1}', 'denied_parameters = { "admin" = [] }')
        write_1(b'{"user":1}', 'allowed_parameters = { "user" = [] }')
        write_2(b'{"user":1}', 'allowed_parameters = { "data" = [] }')
        write_2(b'{"user":1}', 'denied_parameters = { "data" = [{ "admin" = true }] }')
        for write, document, rule in (
            (write_1, b'{"admin":1}', 'denied_parameters = { "admin" = [] }'),
            (write_1, b'{"admin":1}', 'allowed_parameters = { "user" = [] }'),
            (write_1, b'{"admin":1}', 'required_parameters = ["user"]'),
            (write_2, b'{"admin":true}', 'denied_parameters = { "data" = [{ "admin" = true }] }'),
            (write_2, b'{"user":1}', 'required_parameters = ["options"]'),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                write(document, rule)
            assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED, rule
        # What is written stands in the log, in the same members.
        kv1.WriteValue(
            kv1_pb2.WriteValueRequest(mount="bounded", path="logged", data=b'{"user":"told"}'),
            metadata=AS_ROOT,
        )
    platform.http("POST", "bounded/logged", json={"user": "told"})
    entries = (json.loads(line) for line in platform.audit_log.read_text().splitlines())
    requests = [
        entry["request"]["data"]
        for entry in entries
        if entry["type"] == "request" and entry["request"]["path"] == "bounded/logged"
    ]
    assert len(requests) == 2
    assert requests[0] == requests[1]
    platform.http("DELETE", "sys/mounts/bounded")


def test_the_right_to_tune_mounts_nothing(platform: Platform) -> None:
    metadata = _token(platform, 'path "sys/mounts/+/tune" { capabilities = ["update", "sudo"] }')
    with platform.channel() as channel:
        mounts = stub(mounts_pb2_grpc.MountServiceStub, channel)
        with pytest.raises(grpc.RpcError) as caught:
            mounts.EnableMount(
                mounts_pb2.EnableMountRequest(path="sly/tune", type="kv"), metadata=metadata
            )
        assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT
    assert "sly/tune/" not in platform.http("GET", "sys/mounts").json()["data"]


def test_a_name_with_a_slash_at_its_end_is_written_nowhere(platform: Platform) -> None:
    with platform.channel() as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        with pytest.raises(grpc.RpcError) as caught:
            kv.WriteSecret(
                kv2_pb2.WriteSecretRequest(mount="secret", path="grpc/slash/", data=b"{}"),
                metadata=AS_ROOT,
            )
        assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT
    assert platform.http("GET", "secret/data/grpc/slash").status_code == 404


async def test_what_clients_do_not_wait_for_stands_in_the_log_with_its_outcome(
    platform: Platform,
) -> None:
    platform.http("POST", "sys/auth/left", json={"type": "userpass"})
    platform.http("POST", "auth/left/users/app", json={"password": "right"})
    credentials = grpc.ssl_channel_credentials(Path(platform.ca).read_bytes())
    async with grpc.aio.secure_channel(platform.grpc_address, credentials) as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        users = stub(userpass_pb2_grpc.UserpassServiceStub, channel)
        write = kv2_pb2.WriteSecretRequest(mount="secret", path="grpc/left", data=b"{}")
        login = userpass_pb2.LoginUserRequest(mount="auth/left", username="app", password="right")
        await kv.WriteSecret(write, metadata=AS_ROOT)
        calls = [
            kv.WriteSecret(write, metadata=AS_ROOT, timeout=milliseconds / 1000)
            for milliseconds in range(2, 202)
        ]
        calls += [users.LoginUser(login, timeout=number / 100) for number in range(1, 9)]
        codes = {await call.code() for call in calls}
    assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
    assert grpc.StatusCode.INTERNAL not in codes

    def all_have_both() -> bool:
        kinds: dict[str, set[str]] = {"request": set(), "response": set()}
        for line in platform.audit_log.read_text().splitlines():
            entry = json.loads(line)
            if "request" in entry:
                kinds[entry["type"]].add(entry["request"]["id"])
        return kinds["request"] <= kinds["response"]

    until(all_have_both)
    platform.http("DELETE", "sys/auth/left")


def test_what_is_no_trace_context_stands_in_no_entry(platform: Platform) -> None:
    with platform.channel() as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        write = kv2_pb2.WriteSecretRequest(mount="secret", path="grpc/traced", data=b"{}")
        for trace in ("00-nottrace-a-b", f"00-{'nottrace' * 400}-1-2", "nottrace"):
            kv.WriteSecret(write, metadata=(*AS_ROOT, ("traceparent", trace)))
        ours = "5a" * 16
        trace = f"00-{ours}-b7ad6b7169203331-01"
        kv.WriteSecret(write, metadata=(*AS_ROOT, ("traceparent", trace)))
    entries = platform.audit_log.read_text()
    assert "nottrace" not in entries
    assert ours in entries


def test_what_anybody_may_send_is_bounded(platform: Platform) -> None:
    large = kv2_pb2.WriteSecretRequest(mount="secret", path="x", data=b" " * (33 << 20))
    with platform.channel() as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        with pytest.raises(grpc.RpcError) as caught:
            kv.WriteSecret(large)
        assert code_of(caught.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
        # A few kilobytes on the wire that become megabytes here.
        with pytest.raises(grpc.RpcError) as caught:
            kv.WriteSecret(large, compression=grpc.Compression.Gzip)
        assert code_of(caught.value) is grpc.StatusCode.UNIMPLEMENTED


def test_what_would_be_far_larger_in_memory_is_not_read(platform: Platform) -> None:
    number = cipher_pb2.EncryptRequest.DESCRIPTOR.fields_by_name["batch_input"].number
    empty_items = bytes([number << 3 | 2, 0]) * (15 << 20)  # two gigabytes, if anybody made them
    nested = b"[" + b"[]," * 1_200_000 + b"[]]"
    with platform.channel() as channel:
        encrypt: Any = channel.unary_unary("/strongroom.transit.v1.CipherService/Encrypt")
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        write = kv2_pb2.WriteSecretRequest(mount="secret", path="x", data=nested)
        asks: tuple[Callable[[], Any], ...] = (
            lambda: encrypt(empty_items),
            lambda: kv.WriteSecret(write),
        )
        for ask in asks:
            with pytest.raises(grpc.RpcError) as caught:
                ask()
            assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT


def test_large_logins_of_one_moment_break_nothing(platform: Platform) -> None:
    platform.http("POST", "sys/auth/large", json={"type": "approle"})
    login = approle_pb2.LoginAppRoleRequest(
        mount="auth/large", role_id="r", secret_id="s" * (25 << 20)
    )
    with platform.channel() as channel:
        approle = stub(approle_pb2_grpc.AppRoleServiceStub, channel)
        calls = [approle.LoginAppRole.future(login, timeout=120) for _ in range(12)]
        assert {call.exception().code() for call in calls} == {grpc.StatusCode.OUT_OF_RANGE}
        login.secret_id = "s" * (3 << 20)
        with pytest.raises(grpc.RpcError) as caught:
            approle.LoginAppRole(login, timeout=120)
        assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT
    platform.http("DELETE", "sys/auth/large")


def test_reflection_lists_the_services(platform: Platform) -> None:
    with platform.channel() as channel:
        reflection = stub(reflection_pb2_grpc.ServerReflectionStub, channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(reflection.ServerReflectionInfo(iter([request])))
        names = {service.name for service in answer.list_services_response.service}
        assert "strongroom.kv.v1.KvV2Service" in names
        assert "strongroom.auth.v1.TokenGateService" not in names
        assert "grpc.health.v1.Health" in names


@pytest.mark.parametrize("symbol", ["", ".ReadSecret", ".Nothing"])
def test_reflection_knows_services_and_methods(platform: Platform, symbol: str) -> None:
    with platform.channel() as channel:
        reflection = stub(reflection_pb2_grpc.ServerReflectionStub, channel)
        request = reflection_pb2.ServerReflectionRequest(
            file_containing_symbol=f"strongroom.kv.v1.KvV2Service{symbol}"
        )
        answer = next(reflection.ServerReflectionInfo(iter([request])))
    files = answer.file_descriptor_response.file_descriptor_proto
    assert any(b"kv/v1/kv2.proto" in file for file in files) == (symbol != ".Nothing")


def test_health_needs_no_token(platform: Platform) -> None:
    assert platform.serves()
    assert platform.serves("strongroom.kv.v1.KvV2Service")


def _internal_methods() -> list[str]:
    """Returns the methods of all contracts that have no route, `WatchKeyRing` and `Append` of the log among them."""
    modules = (
        importlib.import_module(each.name)
        for package in ("audit", "auth", "dbcreds", "etcd", "kv", "link", "seal", "sys", "transit")
        for path in importlib.import_module(f"strongroom.{package}").__path__
        for each in pkgutil.walk_packages([path], f"strongroom.{package}.")
        if each.name.endswith("_pb2")
    )
    return [
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.GetOptions().HasExtension(options_pb2.route)
    ]


def test_internal_methods_are_not_public(platform: Platform) -> None:
    methods = _internal_methods()
    for known in ("auth.v1.TokenGateService/AdoptRootToken", "seal.v1.KeyService/WatchKeyRing",
                  "audit.v1.AuditLogService/Append", "link.v1.LinkService/Exchange"):  # fmt: skip
        assert f"/strongroom.{known}" in methods
    with platform.channel() as channel:
        for method in methods:
            call: Any = channel.unary_unary(method)
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=AS_ROOT)
            assert code_of(caught.value) is grpc.StatusCode.UNIMPLEMENTED, method

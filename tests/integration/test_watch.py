"""Watching secrets over gRPC: in order, without gaps, filtered by policy, and only while the token lives."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from strongroom.kv.v1 import kv2_pb2, kv2_pb2_grpc
from tests.integration.platforms import ROOT, Platform
from tests.integration.test_grpc import AS_ROOT, code_of, stub

SECRET = b'{"password":"watched-hunter2"}'


@pytest.fixture
def kv(platform: Platform) -> Iterator[Any]:
    with platform.channel() as channel:
        yield stub(kv2_pb2_grpc.KvV2ServiceStub, channel)


def write(kv: Any, path: str) -> None:
    kv.WriteSecret(
        kv2_pb2.WriteSecretRequest(mount="secret", path=path, data=SECRET), metadata=AS_ROOT
    )


def watch(kv: Any, path: str, token: str = ROOT, from_revision: int = 0) -> Any:
    """Returns a watch that has begun."""
    request = kv2_pb2.WatchSecretsRequest(mount="secret/", path=path, from_revision=from_revision)
    call = kv.WatchSecrets(request, metadata=(("x-vault-token", token),), timeout=60)
    assert not next(call).changes
    return call


def changes(call: Any, count: int) -> list[tuple[str, int, bool]]:
    """Returns the next changes."""
    found: list[tuple[str, int, bool]] = []
    while len(found) < count:
        found += [(c.path, c.current_version, c.removed) for c in next(call).changes]
    return found


def token_for(platform: Platform, name: str, policy: str, **parameters: Any) -> str:
    platform.http("PUT", f"sys/policies/acl/{name}", json={"policy": policy})
    body = {"policies": [name], **parameters}
    answer = platform.http("POST", "auth/token/create", json=body).json()
    return str(answer["auth"]["client_token"])


def test_changes_come_in_order_and_hold_no_values(kv: Any) -> None:
    write(kv, "elsewhere/a")
    call = watch(kv, "watch/order")
    for number in range(20):
        write(kv, f"watch/order/{number % 2}")
    write(kv, "elsewhere/a")
    kv.DeleteMetadata(
        kv2_pb2.DeleteMetadataRequest(mount="secret", path="watch/order/0"), metadata=AS_ROOT
    )
    seen = changes(call, 21)
    assert seen == [
        *((f"watch/order/{n % 2}", n // 2 + 1, False) for n in range(20)),
        ("watch/order/0", 0, True),
    ]
    call.cancel()


def test_a_watch_goes_on_where_it_broke_off(kv: Any) -> None:
    call = watch(kv, "watch/resume")
    write(kv, "watch/resume/a")
    message = next(call)
    call.cancel()
    assert b"hunter2" not in message.SerializeToString()
    for name in "bcd":
        write(kv, f"watch/resume/{name}")
    again = watch(kv, "watch/resume", from_revision=message.revision + 1)
    assert [path for path, _, _ in changes(again, 3)] == [f"watch/resume/{n}" for n in "bcd"]
    again.cancel()


def test_only_what_the_caller_may_read_is_shown(platform: Platform, kv: Any) -> None:
    token = token_for(
        platform,
        "watch-some",
        'path "secret/metadata/watch/some/*" { capabilities = ["list"] }\n'
        'path "secret/data/watch/some/open-*" { capabilities = ["read"] }\n',
    )
    call = watch(kv, "watch/some", token)
    for name in ("hidden-1", "open-1", "hidden-2", "open-2"):
        write(kv, f"watch/some/{name}")
    seen = changes(call, 2)
    assert [path for path, _, _ in seen] == ["watch/some/open-1", "watch/some/open-2"]
    call.cancel()


def test_a_watch_ends_with_the_token(platform: Platform, kv: Any) -> None:
    policy = 'path "secret/*" { capabilities = ["read", "list"] }'
    token = token_for(platform, "watch-all", policy)
    call = watch(kv, "watch/end", token)
    write(kv, "watch/end/a")
    assert changes(call, 1) == [("watch/end/a", 1, False)]
    platform.http("POST", "auth/token/revoke", json={"token": token})
    write(kv, "watch/end/a")
    with pytest.raises(grpc.RpcError) as caught:
        list(itertools.islice(call, 1))
    assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED


def test_who_may_not_list_or_has_counted_uses_may_not_watch(platform: Platform, kv: Any) -> None:
    policy = 'path "secret/data/*" { capabilities = ["read"] }'
    cases = [
        (token_for(platform, "watch-none", policy), grpc.StatusCode.PERMISSION_DENIED),
        ("srs.unknown", grpc.StatusCode.PERMISSION_DENIED),
        (
            token_for(
                platform,
                "watch-all",
                'path "secret/*" { capabilities = ["read", "list"] }',
                num_uses=3,
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ]
    for token, code in cases:
        with pytest.raises(grpc.RpcError) as caught:
            watch(kv, "watch/none", token)
        assert code_of(caught.value) is code


def test_a_revision_that_cannot_be_is_refused(kv: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        watch(kv, "watch", from_revision=-1)
    assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_watch_ends_with_the_mount(platform: Platform, kv: Any) -> None:
    body = {"type": "kv", "options": {"version": "2"}}
    assert platform.http("POST", "sys/mounts/watched", json=body).ok
    request = kv2_pb2.WatchSecretsRequest(mount="watched")
    call = kv.WatchSecrets(request, metadata=AS_ROOT, timeout=60)
    assert not next(call).changes
    assert platform.http("DELETE", "sys/mounts/watched").ok
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert code_of(caught.value) is grpc.StatusCode.NOT_FOUND

"""What operators set and look at below sys/, on both wires."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests

from strongroom.kv.v1 import cubbyhole_pb2, cubbyhole_pb2_grpc
from strongroom.transit.v1 import stream_pb2, stream_pb2_grpc
from tests.integration.platforms import ROOT, Platform, until

ORIGIN = {"Origin": "https://pages.example"}


@pytest.fixture
def quota(platform: Platform) -> Iterator[str]:
    """Three requests an hour to the cubbyhole, with headers in the answers."""
    body = {"rate": 3, "interval": "1h", "path": "cubbyhole"}
    assert platform.http("POST", "sys/quotas/rate-limit/cubby", json=body).status_code == 204
    config = {"enable_rate_limit_response_headers": True, "enable_rate_limit_audit_logging": True}
    assert platform.http("POST", "sys/quotas/config", json=config).status_code == 204
    yield "cubby"
    platform.http("DELETE", "sys/quotas/rate-limit/cubby")
    platform.http("POST", "sys/quotas/config", json=dict.fromkeys(config, False))


def test_a_quota_holds_both_wires_and_says_how_much_is_left(platform: Platform, quota: str) -> None:
    first = platform.http("GET", "cubbyhole/limited")
    assert (first.status_code, first.headers["X-Ratelimit-Limit"]) == (404, "3")
    assert first.headers["X-Ratelimit-Remaining"] == "2"
    with platform.channel() as channel:
        stub: Any = cubbyhole_pb2_grpc.CubbyholeServiceStub(channel)  # type: ignore[arg-type]
        request = cubbyhole_pb2.ReadCubbyholeRequest(mount="cubbyhole", path="limited")
        metadata = [("x-vault-token", ROOT)]
        with pytest.raises(grpc.RpcError) as missing:
            stub.ReadCubbyhole(request, metadata=metadata)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        assert platform.http("GET", "cubbyhole/limited").status_code == 404
        refused = platform.http("GET", "cubbyhole/limited")
        assert refused.status_code == 429
        assert refused.json() == {
            "errors": ['request path "cubbyhole/limited": rate limit quota exceeded']
        }
        assert int(refused.headers["Retry-After"]) > 3_000
        assert "rate limit quota exceeded" in platform.audit_log.read_text()
        with pytest.raises(grpc.RpcError) as exhausted:
            stub.ReadCubbyhole(request, metadata=metadata)
        assert exhausted.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Others are not counted, nor is what is exempt.
    assert platform.http("GET", "secret/metadata?list=true").status_code in (200, 404)
    body = {"rate_limit_exempt_paths": ["cubbyhole/*"]}
    platform.http("POST", "sys/quotas/config", json=body)
    assert platform.http("GET", "cubbyhole/limited").status_code == 404
    platform.http("POST", "sys/quotas/config", json={"rate_limit_exempt_paths": ["sys/health"]})
    assert platform.http("GET", "cubbyhole/limited").status_code == 429


def test_a_stream_goes_no_faster_than_its_quota_allows(platform: Platform) -> None:
    assert platform.http("POST", "sys/mounts/slow", json={"type": "transit"}).ok
    assert platform.http("POST", "slow/keys/k").ok
    body = {"rate": 3, "interval": "1h", "path": "slow/encrypt/k"}
    assert platform.http("POST", "sys/quotas/rate-limit/slow", json=body).status_code == 204
    items = [stream_pb2.EncryptStreamItem(plaintext=b"x")]
    batches = [
        stream_pb2.EncryptStreamRequest(mount="slow", name="k", items=items) for _ in range(6)
    ]
    with platform.channel() as channel:
        streams: Any = stream_pb2_grpc.TransitStreamServiceStub(channel)  # type: ignore[arg-type]
        answers = streams.EncryptStream(iter(batches), metadata=[("x-vault-token", ROOT)])
        for _ in range(3):
            assert next(answers).items[0].ciphertext
        # The quota is used up, for others as well; nobody is told that the stream has failed.
        body = {"plaintext": "eA=="}
        assert platform.http("POST", "slow/encrypt/k", json=body).status_code == 429
        assert answers.is_active()
        platform.http("DELETE", "sys/quotas/rate-limit/slow")
        assert len(list(answers)) == 3
    platform.http("DELETE", "sys/mounts/slow")


def test_the_log_is_streamed_until_the_token_is_revoked(platform: Platform) -> None:
    policy = 'path "sys/monitor" { capabilities = ["read"] }'
    platform.http("POST", "sys/policies/acl/monitor", json={"policy": policy})
    body = {"policies": ["monitor"]}
    made = platform.http("POST", "auth/token/create", json=body).json()["auth"]
    token = made["client_token"]
    url = f"{platform.address}/v1/sys/monitor?log_level=debug"
    headers = {"X-Vault-Token": token}
    with requests.get(url, headers=headers, verify=platform.ca, stream=True, timeout=60) as shown:
        assert (shown.status_code, shown.headers["Content-Type"]) == (200, "text/plain")
        platform.http("POST", "auth/token/revoke-accessor", json={"accessor": made["accessor"]})
        shown.content  # ends  # noqa: B018
    refused = platform.http("GET", "sys/monitor", token)
    assert refused.status_code == 403
    for query in ("log_level=bogus", "log_format=bogus"):
        answer = platform.http("GET", f"sys/monitor?{query}")
        assert (answer.status_code, "unknown log" in answer.text) == (400, True)


def test_a_quota_of_a_role_counts_its_logins_alone(platform: Platform) -> None:
    platform.http("POST", "sys/auth/limited", json={"type": "approle"})
    ids = {}
    for name in ("slow", "quick"):
        platform.http("POST", f"auth/limited/role/{name}", json={})
        ids[name] = platform.http("GET", f"auth/limited/role/{name}/role-id").json()["data"]
    body = {"rate": 1, "interval": "1h", "path": "auth/limited", "role": "slow"}
    assert platform.http("POST", "sys/quotas/rate-limit/role", json=body).status_code == 204
    statuses = {
        name: [
            platform.http(
                "POST", "auth/limited/login", None, json={**ids[name], "secret_id": "x"}
            ).status_code
            for _ in range(2)
        ]
        for name in ids
    }
    assert statuses == {"slow": [400, 429], "quick": [400, 400]}
    # The quota stays with the mount when that is moved.
    platform.http("POST", "sys/remount", json={"from": "auth/limited", "to": "auth/moved"})
    shown = platform.http("GET", "sys/quotas/rate-limit/role").json()["data"]
    assert shown["path"] == "auth/moved/"
    body = {**ids["slow"], "secret_id": "x"}
    assert platform.http("POST", "auth/moved/login", None, json=body).status_code == 429
    platform.http("DELETE", "sys/quotas/rate-limit/role")
    platform.http("DELETE", "sys/auth/moved")


def test_pages_of_other_origins_are_refused_once_that_is_asked_for(platform: Platform) -> None:
    plain = platform.http("GET", "sys/health", None, headers=ORIGIN)
    assert (plain.status_code, "Access-Control-Allow-Origin" in plain.headers) == (200, False)
    assert platform.http("OPTIONS", "sys/health", None, headers=ORIGIN).status_code == 405
    body = {"allowed_origins": [ORIGIN["Origin"]], "allowed_headers": ["X-Mine"]}
    platform.http("POST", "sys/config/cors", json=body)
    try:
        allowed = platform.http("GET", "sys/health", None, headers=ORIGIN)
        assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        asked = {**ORIGIN, "Access-Control-Request-Method": "PUT"}
        preflight = platform.http("OPTIONS", "secret/data/x", None, headers=asked)
        assert (preflight.status_code, preflight.content) == (200, b"")
        assert "X-Mine" in preflight.headers["Access-Control-Allow-Headers"]
        for method in ("GET", "OPTIONS"):
            headers = {**asked, "Origin": "https://other.example"}
            refused = platform.http(method, "sys/health", headers=headers)
            assert (refused.status_code, refused.json()) == (
                403,
                {"errors": ["origin not allowed"]},
            )
        denied = platform.http("GET", "sys/mounts", "bad", headers=ORIGIN)
        assert denied.status_code == 403
        assert denied.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert platform.http("GET", "sys/health", None).status_code == 200
    finally:
        platform.http("DELETE", "sys/config/cors")


def test_audited_headers_stand_in_entries_and_secret_ones_as_hmacs(platform: Platform) -> None:
    platform.http("POST", "sys/config/auditing/request-headers/X-Ticket", json={})
    platform.http("POST", "sys/config/auditing/request-headers/X-Person", json={"hmac": True})
    headers = {"X-Ticket": "ticket-17", "X-Person": "ann-the-secret", "X-Other": "left-out"}
    answer = platform.http("GET", "cubbyhole/audited-headers", headers=headers)
    assert answer.status_code == 404
    lines = platform.audit_log.read_text().splitlines()
    entries = [json.loads(line) for line in lines if "cubbyhole/audited-headers" in line]
    shown = entries[-1]["request"]["headers"]
    assert shown["x-ticket"] == ["ticket-17"]
    assert shown["x-person"][0].startswith("hmac-sha256:")
    assert "ann-the-secret" not in str(entries)
    assert "left-out" not in str(entries)
    refused = platform.http("POST", "sys/config/auditing/request-headers/X-Vault-Token", json={})
    assert (refused.status_code, "hmac" in refused.text) == (400, True)
    for name in ("x-ticket", "x-person"):
        platform.http("DELETE", f"sys/config/auditing/request-headers/{name}")


def test_metrics_count_requests_and_name_nothing_that_anybody_chose(platform: Platform) -> None:
    platform.http("POST", "cubbyhole/a-name-that-somebody-chose", json={"v": "a-value"})
    answer = platform.http("GET", "sys/metrics?format=prometheus")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    line = next(
        line
        for line in answer.text.splitlines()
        if line.startswith('strongroom_requests_total{mount_type="cubbyhole"')
        and 'outcome="ok"' in line
    )
    assert float(line.rpartition(" ")[2]) >= 1
    assert "strongroom_sealed 0.0" in answer.text
    for text in ("a-name-that-somebody-chose", "a-value", ROOT, "secret/"):
        assert text not in answer.text
    assert {"Gauges", "Counters", "Samples"} <= set(platform.http("GET", "sys/metrics").json())
    assert platform.http("GET", "sys/metrics?format=xml").status_code == 400
    assert platform.http("GET", "sys/metrics", None).status_code == 403


def test_operators_see_requests_loggers_versions_and_the_machine(platform: Platform) -> None:
    def paths() -> list[str]:
        requests = platform.http("GET", "sys/in-flight-req").json()
        return [request["request_path"] for request in requests.values()]

    # Beside those whose clients an earlier test did not wait for.
    until(lambda: paths() == ["/v1/sys/in-flight-req"])
    history = platform.http("LIST", "sys/version-history").json()["data"]
    (version,) = history["keys"]
    assert history["key_info"][version]["previous_version"] is None
    # Clients that ask for no more than they believe a version of Vault to have are told one, beside the true one.
    told = {
        platform.http("GET", "sys/health", None).json()["version"],
        platform.http("GET", "sys/seal-status", None).json()["version"],
        platform.http("GET", "sys/ha-status").json()["nodes"][0]["version"],
    }
    assert told == {f"1.19.0+strongroom.{version}"}
    assert platform.http("GET", "sys/host-info").json()["data"]["memory"]["total"] > 0
    levels = platform.http("GET", "sys/loggers").json()["data"]
    assert set(levels.values()) == {"info"}
    name = "strongroom_gateway.http.server"
    platform.http("POST", f"sys/loggers/{name}", json={"level": "debug"})
    assert platform.http("GET", f"sys/loggers/{name}").json()["data"] == {name: "debug"}
    platform.http("DELETE", f"sys/loggers/{name}")
    state = platform.http("GET", "sys/config/state/sanitized").json()["data"]
    assert state["storage"] == {"type": "etcd"}
    router = platform.http("GET", "sys/internal/inspect/router/root").json()["data"]["root"]
    assert "secret/" in [mount["mount_path"] for mount in router]
    request = platform.http("GET", "sys/internal/inspect/request").json()["data"]["req"]
    assert request["path"] == "sys/internal/inspect/request"
    assert ROOT not in json.dumps(request)


def test_what_is_for_operators_needs_sudo(platform: Platform) -> None:
    rule = 'path "sys/*" { capabilities = ["create", "read", "update", "delete", "list"] }'
    platform.http("POST", "sys/policies/acl/no-sudo", json={"policy": rule})
    made = platform.http("POST", "auth/token/create", json={"policies": ["no-sudo"]})
    token = made.json()["auth"]["client_token"]
    for path in ("metrics", "host-info", "in-flight-req", "loggers", "leases/count"):
        assert platform.http("GET", f"sys/{path}", token).status_code == 200, path
    for method, path in (
        ("GET", "sys/config/cors"),
        ("GET", "sys/config/auditing/request-headers"),
        ("GET", "sys/internal/inspect/router/root"),
        ("POST", "sys/loggers"),
    ):
        answer = platform.http(method, path, token, json={"level": "debug"})
        assert answer.status_code == 403, path

"""What clients should not send: Vault's status codes and error bodies, and nothing changed."""

import base64
import http.client
import json
import socket
import ssl
import uuid
from urllib.parse import urlsplit

import pytest

from tests.integration.platforms import ROOT, Platform, until


def raw(
    platform: Platform, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    """Sends a path as it is: other clients would tidy it first."""
    address = urlsplit(platform.address)
    context = ssl.create_default_context(cafile=platform.ca)
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port, timeout=60, context=context
    )
    try:
        connection.request(method, path, body, {"X-Vault-Token": ROOT, **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/nomount/x", 404, "no handler for route"),
        ("GET", "/v1/sys/nonsense", 404, "unsupported path"),
        ("GET", "/v1/sys/storage/raft/configuration", 404, "unsupported path: raft storage is not"),
        ("POST", "/v1/sys/namespaces/team", 404, "namespaces are not supported"),
        ("POST", "/v1/identity/entity", 404, "identity is not supported"),
        ("GET", "/elsewhere", 404, ""),
        ("DELETE", "/v1/sys/mounts", 405, "unsupported operation"),
        ("BREW", "/v1/secret/data/x", 405, "unsupported operation"),
        ("GET", "/v1/secret/data/absent", 404, ""),
        ("GET", "//v1/secret/data/x", 404, ""),
        ("GET", "/v1/secret/../sys/mounts", 400, "relative paths"),
        ("GET", "/v1/secret/%2e%2e/sys/mounts", 400, "relative paths"),
        ("GET", "/v1/secret/data/%2e", 400, "relative paths"),
        ("GET", "/v1/secret/data/a%00b", 400, "non-printable"),
        ("GET", "/v1/secret/data/a%0ab", 400, "non-printable"),
        ("GET", "/v1/secret/data/x?version=many", 400, "version"),
        ("GET", "/v1/secret/metadata/?list=perhaps", 400, "list"),
    ],
)
def test_paths(platform: Platform, method: str, path: str, status: int, text: str) -> None:
    answer, body = raw(platform, method, path)
    assert answer == status, body
    assert text in "".join(json.loads(body)["errors"])


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "JSON"),
        (b"[1]", 400, "object"),
        (b'{"data": 5}', 400, "data"),
        (b'{"data": null}', 400, "no data"),
        (b"{}", 400, "no data"),
        (b'{"data": {}, "options": {"cas": "x"}}', 400, "cas"),
        (b'{"data":' + b"[" * 1000 + b"]" * 1000 + b"}", 400, "nested"),
        (b'{"data":{"x":"' + b"y" * (1 << 20) + b'"}}', 413, "1048576"),
        (b" " * (33 << 20), 413, "too large"),
        (b" " * (5 << 20), 413, "at most 4 MiB"),
        (b'{"data":{"x":[' + b"1," * 2_000_001 + b"1]}}", 400, "values"),
    ],
)
def test_bodies(platform: Platform, body: bytes, status: int, text: str) -> None:
    answer, content = raw(platform, "POST", "/v1/secret/data/bad", body)
    assert answer == status, content
    assert text in "".join(json.loads(content)["errors"])
    assert raw(platform, "GET", "/v1/secret/data/bad")[0] == 404


def test_large_bodies_are_for_those_who_compute_with_them(platform: Platform) -> None:
    """Without a token they are not even read: one of 30 MiB took more than a second, in which nobody was answered."""
    mount = f"large-{uuid.uuid4().hex[:8]}"
    platform.http("POST", f"sys/mounts/{mount}", json={"type": "transit"})
    platform.http("POST", f"{mount}/keys/k", json={})
    body = json.dumps({"plaintext": base64.b64encode(bytes(5 << 20)).decode()})
    try:
        for path, token, status in (
            (f"{mount}/encrypt/k", ROOT, 200),
            (f"{mount}/encrypt/k", None, 403),
            # Who has no right learns of no limit by which a path is told from others.
            (f"{mount}/encrypt/k", "made-up", 403),
            ("secret/data/large", "made-up", 403),
            ("nomount/x", "made-up", 403),
            ("secret/data/large", ROOT, 413),
            ("auth/userpass/login/somebody", None, 403),  # of no login mount
            ("sys/unseal", None, 413),
            ("sys/wrapping/unwrap", None, 413),
        ):
            assert platform.http("POST", path, token, data=body).status_code == status, path
        answer = platform.http("POST", "sys/tools/hash", data=body.replace("plaintext", "input"))
        assert answer.status_code == 200
    finally:
        platform.http("DELETE", f"sys/mounts/{mount}")


def test_parameters_of_the_query(platform: Platform) -> None:
    platform.http("POST", "secret/data/query", json={"data": {"a": "1"}})
    try:
        # The latest version would be gone for a request that named another, or none.
        for query in ("version=junk", "version=1"):
            answer = platform.http("DELETE", f"secret/data/query?{query}")
            assert (answer.status_code, "version" in answer.text) == (400, True)
        # Which of the two counts, a policy and a service could see differently.
        answer = platform.http("GET", "secret/data/query?version=1&version=2")
        assert (answer.status_code, "twice" in answer.text) == (400, True)
        answer = platform.http("GET", "secret/data/query?verison=1")
        assert answer.json()["warnings"] == [
            "Endpoint ignored these unrecognized parameters: [verison]"
        ]
        assert answer.json()["data"]["data"] == {"a": "1"}
    finally:
        platform.http("DELETE", "secret/metadata/query")


def test_policies_are_asked_before_fields_are_read(platform: Platform) -> None:
    """As in OpenBao; that a body is no JSON object is said to everybody."""
    made = platform.http("POST", "auth/token/create", json={"policies": ["default"], "ttl": "5m"})
    stranger = made.json()["auth"]["client_token"]
    for method, path, body in (
        ("LIST", "secret/metadata?limit=junk", None),
        ("GET", "secret/data/x?version=junk", None),
        ("DELETE", "secret/data/x?version=junk", None),
        ("POST", "secret/data/x", {"options": {"cas": "x"}, "data": {}}),
        ("POST", "sys/mounts/new", {"config": "x"}),
        ("POST", "auth/token/create", {"ttl": "junk"}),
    ):
        statuses = [
            platform.http(method, path, token, json=body).status_code
            for token in (None, stranger, ROOT)
        ]
        assert statuses == [403, 403, 400], path
    platform.http("POST", "auth/token/revoke", json={"token": stranger})


def test_spans_that_nobody_can_count_are_refused(platform: Platform) -> None:
    for span in (10**12, "300000000h"):
        body = {"delete_version_after": span}
        answer = platform.http("POST", "secret/metadata/span", json=body)
        assert (answer.status_code, "292 years" in answer.text) == (400, True)
        answer = platform.http(
            "POST", "sys/wrapping/wrap", json={}, headers={"X-Vault-Wrap-TTL": str(span)}
        )
        assert (answer.status_code, "292 years" in answer.text) == (400, True)
    assert platform.http("GET", "secret/metadata/span").status_code == 404
    # The longest there is can be looked at.
    headers = {"X-Vault-Wrap-TTL": "2562047h"}
    wrapped = platform.http("POST", "sys/wrapping/wrap", json={}, headers=headers).json()
    token = {"token": wrapped["wrap_info"]["token"]}
    shown = platform.http("POST", "auth/token/lookup", json=token).json()["data"]
    assert shown["expire_time"].startswith("23")
    platform.http("POST", "auth/token/revoke", json=token)


def test_what_the_path_names_is_not_named_otherwise_by_the_body(platform: Platform) -> None:
    path = "auth/token/roles/in-the-path"
    try:
        for same in ("in-the-path", None):
            assert platform.http("POST", path, json={"role_name": same}).status_code == 204
        for other in ("another", 5):
            answer = platform.http("POST", path, json={"role_name": other})
            assert answer.json()["warnings"] == [
                "Endpoint replaced the value of these parameters with the values captured from the"
                " endpoint's path: [role_name]"
            ]
        assert platform.http("GET", "auth/token/roles/another").status_code == 404
    finally:
        platform.http("DELETE", path)


def test_a_request_for_another_namespace_is_not_answered_from_the_root(platform: Platform) -> None:
    paths = ("secret/data/x", "sys/health", "sys/mounts", "auth/token/lookup-self")
    for name in ("team", "team/", "root/team", "%2F"):
        for path in paths:
            answer = platform.http("GET", path, headers={"X-Vault-Namespace": name})
            assert (answer.status_code, answer.json()) == (404, {"errors": ["namespace not found"]})
            assert answer.headers["X-Vault-Namespace"] == name
    for name in ("root", "/", "root/"):
        answer = platform.http("GET", "sys/mounts", headers={"X-Vault-Namespace": name})
        assert (answer.status_code, answer.headers["X-Vault-Namespace"]) == (200, name)
    assert "X-Vault-Namespace" not in platform.http("GET", "sys/mounts").headers


def test_tokens(platform: Platform) -> None:
    denied = {"errors": ["permission denied"]}
    for token in (None, "bad", "srs.unknown", "x" * 9000):
        answer = platform.http("GET", "secret/data/x", token)
        assert answer.status_code == (400 if token and len(token) > 8192 else 403)
        if answer.status_code == 403:
            assert answer.json() == denied
    # A path that leads nowhere says so only to those who may go there.
    assert platform.http("GET", "nomount/x", "bad").json() == denied
    # Those whom their policies keep out are told so in other words, which clients look for.
    made = platform.http("POST", "auth/token/create", json={"policies": ["default"]}).json()
    answer = platform.http("GET", "secret/data/x", made["auth"]["client_token"])
    assert answer.json() == {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}


def test_slashes_beside_each_other_are_tidied_by_the_client(platform: Platform) -> None:
    answer = platform.http("GET", "secret//metadata//?list=true&after=a%2Fb", allow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["Location"] == "/v1/secret/metadata/?list=true&after=a%2Fb"
    body = {"data": {"a": "1"}}
    assert platform.http("POST", "secret/data//tidy//name", json=body).status_code == 200
    assert (
        "name" in platform.http("GET", "secret//metadata/tidy//?list=true").json()["data"]["keys"]
    )
    # What a path must not have is refused there as well, and stays encoded on its way.
    answer = platform.http("GET", "secret//a%0d%0aSet-Cookie:%20x", allow_redirects=False)
    assert answer.headers["Location"] == "/v1/secret/a%0D%0ASet-Cookie:%20x"
    assert raw(platform, "GET", "/v1/secret//data/../../sys/mounts")[0] == 307
    assert platform.http("GET", "secret//a%0d%0a").status_code == 400


def test_clients_that_know_tls_1_2_alone_are_served(platform: Platform) -> None:
    address = urlsplit(platform.address)
    context = ssl.create_default_context(cafile=platform.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((address.hostname, address.port or 0), timeout=60) as connection,
        context.wrap_socket(connection, server_hostname=address.hostname) as secured,
    ):
        assert secured.version() == "TLSv1.2"
    answer = platform.http("GET", "sys/health", None)
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_patch_needs_its_content_type(platform: Platform) -> None:
    answer = platform.http("PATCH", "secret/data/x", json={"data": {}})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "code", ["1", "99", "199", "600", "999", "1000", "-1", "4294967296", "many"]
)
def test_health_takes_no_status_that_is_none(platform: Platform, code: str) -> None:
    for name in ("activecode", "standbycode", "sealedcode", "uninitcode"):
        answer = platform.http("GET", f"sys/health?{name}={code}", None)
        assert answer.status_code == 400, answer.text
        assert name in answer.json()["errors"][0]
    # Nobody needs a token for that, so nobody may end the process with it.
    assert platform.http("GET", "sys/health?activecode=299&standbyok=true", None).status_code == 299
    head = platform.http("HEAD", "sys/health?activecode=298", None)  # as load balancers ask
    assert (head.status_code, head.content) == (298, b"")
    for empty in ("204", "304"):
        answer = platform.http("GET", f"sys/health?activecode={empty}", None)
        assert (answer.status_code, answer.content) == (int(empty), b"")


def test_wrapping_headers(platform: Platform) -> None:
    for ttl in ("-1", "soon"):
        answer = platform.http("GET", "sys/mounts", headers={"X-Vault-Wrap-TTL": ttl})
        assert answer.status_code == 400
    assert platform.http("POST", "sys/wrapping/wrap", json={"a": 1}).status_code == 400
    wrapped = platform.http("GET", "sys/mounts", headers={"X-Vault-Wrap-TTL": "60"}).json()
    opened = platform.http("POST", "sys/wrapping/unwrap", wrapped["wrap_info"]["token"]).json()
    assert ("secret/" in opened["data"], "secret/" in opened) == (True, False)
    assert platform.http("POST", "sys/wrapping/unwrap", json={"token": "x"}).status_code == 400


def test_forms_are_taken_and_other_namespaces_are_not_there(platform: Platform) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = platform.http("POST", "cubbyhole/form", data="a=1&b=x+y", headers=form)
    assert answer.status_code == 204, answer.text
    assert platform.http("GET", "cubbyhole/form").json()["data"] == {"a": "1", "b": "x y"}
    for name, status in (("team", 404), ("root", 200), ("/", 200)):
        answer = platform.http("GET", "cubbyhole/form", headers={"X-Vault-Namespace": name})
        assert answer.status_code == status


def test_a_key_that_comes_twice_is_refused(platform: Platform) -> None:
    twice = b'{"a":1,"a":2}'
    for path, body in (("cubbyhole/x", twice), ("secret/data/x", b'{"data":' + twice + b"}")):
        answer = platform.http("POST", path, data=body)
        assert (answer.status_code, "twice" in answer.text) == (400, True)
    wrap = {"X-Vault-Wrap-TTL": "60"}
    assert platform.http("POST", "sys/wrapping/wrap", data=twice, headers=wrap).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"data":{"a":1}}',
        '{"data":{"a":"\u00e4"}}'.encode("utf-16"),
        '{"data":{"a":"\u00e4"}}'.encode("latin-1"),
        b'{"data":{"a":"\\ud800"}}',
        b'{"data":{"a":"\x00"}}',
        b'{"data":{"a":NaN}}',
        b'{"data":{"a":1}}x',
        b"{'data':1}",
        b'{"a":' * 100_000,
        b"\x1f\x8b\x08\x00",
        b"--x\r\nContent-Disposition: form-data",
    ],
)
def test_what_is_not_json_is_said_to_be_so(platform: Platform, body: bytes) -> None:
    for path in ("secret/data/odd", "cubbyhole/odd", "auth/token/create", "sys/mounts/odd"):
        answer = platform.http("POST", path, data=body)
        assert (answer.status_code, "JSON" in answer.text) == (400, True), answer.text


def test_no_attempt_is_begun_or_given_up_without_a_token(platform: Platform) -> None:
    attempts = (
        "sys/generate-root/attempt",
        "sys/generate-root-token/attempt",
        "sys/rekey/init",
        "sys/rekey-recovery-key/init",
        "sys/rotate/root/init",
        "sys/rotate/recovery/init",
    )
    body = {"secret_shares": 1, "secret_threshold": 1}
    default = platform.http("POST", "auth/token/create", json={"policies": ["default"]}).json()
    for path in attempts:
        for token in (None, "", "srs.unknown", default["auth"]["client_token"]):
            assert platform.http("POST", path, token, json=body).status_code == 403
    started = platform.http("POST", "sys/generate-root/attempt").json()
    for path in attempts:
        assert platform.http("DELETE", path, None).status_code == 403
    shown = platform.http("GET", "sys/generate-root/attempt", None).json()
    assert (shown["started"], shown["nonce"]) == (True, started["nonce"])
    assert platform.http("DELETE", "sys/generate-root/attempt").status_code == 204
    for path in ("sys/seal", "sys/rotate", "sys/step-down"):
        assert platform.http("POST", path, None).status_code == 403


@pytest.mark.parametrize(
    "header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Vault-Operation"]
)
def test_a_header_does_not_change_what_a_request_does(platform: Platform, header: str) -> None:
    platform.http("POST", "cubbyhole/override", json={"a": "1"})
    for method in ("DELETE", "alias-lookahead", "resolve-role", "renew"):
        answer = platform.http("GET", "cubbyhole/override", headers={header: method})
        assert answer.json()["data"] == {"a": "1"}
    assert platform.http("GET", "cubbyhole/override").status_code == 200


@pytest.mark.parametrize(
    "method", ["ALIAS-LOOKAHEAD", "RESOLVE-ROLE", "ROLLBACK", "REVOKE", "RENEW", "HELP", "HEADER"]
)
def test_methods_that_no_client_may_use_do_nothing(platform: Platform, method: str) -> None:
    for path in ("/v1/auth/token/create", "/v1/cubbyhole/x", "/v1/sys/mounts"):
        answer, body = raw(platform, method, path, b"{}")
        assert (answer, b"unsupported" in body) == (405, True)


def test_a_client_that_leaves_is_no_error(platform: Platform) -> None:
    def errors() -> int:
        return (platform.folder / "output.log").read_text().count("a request failed")

    before = errors()
    host, _, port = platform.address.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=platform.ca)
    for body in (b'{"data":', b""):
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            head = f"POST /v1/secret/data/x HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {ROOT}\r\n"
            secured.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + body)
    # The next request is answered after those were given up.
    assert platform.http("GET", "sys/health", None).status_code == 200
    until(lambda: len(platform.http("GET", "sys/in-flight-req").json()) == 1)
    assert errors() == before


def test_unknown_parameters_are_warned_of(platform: Platform) -> None:
    answer = platform.http("POST", "sys/tools/random", json={"nonsense": 1, "bytes": 4})
    assert answer.status_code == 200
    assert answer.json()["warnings"] == [
        "Endpoint ignored these unrecognized parameters: [nonsense]"
    ]


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "x", [], [1], {}, {"a": 1}])
def test_any_type_in_a_login_is_no_more_than_an_error(platform: Platform, value: object) -> None:
    platform.http("POST", "sys/auth/badlogin", json={"type": "approle"})
    for field in ("role_id", "secret_id"):
        body = {"role_id": "a", "secret_id": "b", field: value}
        answer = platform.http("POST", "auth/badlogin/login", None, json=body)
        assert answer.status_code == 400
    platform.http("DELETE", "sys/auth/badlogin")


@pytest.mark.parametrize("field", ["secret_id_bound_cidrs", "bound_cidr_list"])
def test_a_role_is_refused_from_outside_of_its_ranges(platform: Platform, field: str) -> None:
    platform.http("POST", "sys/auth/fenced", json={"type": "approle"})
    try:
        for ranges, allowed in (
            ("10.0.0.0/8, 2001:db8::/32", False),
            (["10.0.0.0/8", "127.0.0.0/8"], True),
            ("::ffff:127.0.0.0/104", True),
        ):
            written = platform.http("POST", "auth/fenced/role/app", json={field: ranges})
            assert written.status_code == 204
            role_id = platform.http("GET", "auth/fenced/role/app/role-id").json()["data"]["role_id"]
            made = platform.http("POST", "auth/fenced/role/app/secret-id").json()["data"]
            body = {"role_id": role_id, "secret_id": made["secret_id"]}
            answer = platform.http("POST", "auth/fenced/login", None, json=body)
            assert answer.status_code == (200 if allowed else 403)
            assert ("auth" in answer.json()) is allowed
        for token_ranges, status in (("10.0.0.0/8", 403), ("::ffff:127.0.0.1", 200)):
            body = {field: "127.0.0.1/32", "token_bound_cidrs": token_ranges}
            platform.http("POST", "auth/fenced/role/app", json=body)
            made = platform.http("POST", "auth/fenced/role/app/secret-id").json()["data"]
            body = {"role_id": role_id, "secret_id": made["secret_id"]}
            token = platform.http("POST", "auth/fenced/login", None, json=body).json()["auth"]
            looked = platform.http("GET", "auth/token/lookup-self", token["client_token"])
            assert looked.status_code == status
    finally:
        platform.http("DELETE", "sys/auth/fenced")


def test_many_secrets_are_listed_in_pages(platform: Platform) -> None:
    with platform.client() as client:
        for number in range(300):
            body = {"data": {"n": number}}
            assert client.ask("POST", f"secret/data/many/{number:05}", ROOT, json=body).ok
    keys = platform.http("LIST", "secret/metadata/many").json()["data"]["keys"]
    assert keys == [f"{number:05}" for number in range(300)]
    page = platform.http("GET", "secret/metadata/many?list=true&after=00009&limit=3")
    assert page.json()["data"]["keys"] == ["00010", "00011", "00012"]


def test_a_login_uses_up_nothing_of_the_token_that_comes_with_it(platform: Platform) -> None:
    platform.http("POST", "sys/auth/counted", json={"type": "userpass"})
    platform.http("POST", "auth/counted/users/bob", json={"password": "pw"})
    body = {"policies": ["default"], "num_uses": 1}
    made = platform.http("POST", "auth/token/create", json=body).json()["auth"]["client_token"]
    for password, status in (("pw", 200), ("wrong", 400), ("pw", 200)):
        login = platform.http(
            "POST", "auth/counted/login/bob", token=made, json={"password": password}
        )
        assert login.status_code == status
    for status in (200, 403):
        assert platform.http("GET", "auth/token/lookup-self", token=made).status_code == status
    platform.http("DELETE", "sys/auth/counted")


def test_a_policy_without_a_name_is_no_policy(platform: Platform) -> None:
    for path in ("sys/policies/acl/%20", "sys/policy/%20"):
        for method, status in (("GET", 404), ("DELETE", 400)):
            assert platform.http(method, path).status_code == status

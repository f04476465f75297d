"""Users of a real PostgreSQL through the whole platform: made, used, renewed, and gone when they must be."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest

from strongroom.dbcreds.v1 import lease_pb2, lease_pb2_grpc, role_pb2, role_pb2_grpc
from tests.integration.databases import ADMIN, PASSWORD, Postgres, is_cut_off
from tests.integration.platforms import ROOT, Platform, contents, until, while_it_lasts

CREATE = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"


def configure(platform: Platform, database: Postgres, mount: str, **role: Any) -> None:
    """Mounts the engine, with a connection and the role app."""
    platform.http("POST", f"sys/mounts/{mount}", json={"type": "database"})
    done = platform.http(
        "POST",
        f"{mount}/config/pg",
        json={
            "plugin_name": "postgresql-database-plugin",
            "connection_url": database.url,
            "username": ADMIN,
            "password": PASSWORD,
            "allowed_roles": "app",
        },
    )
    assert done.status_code == 204, done.text
    body = {"db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h"} | role
    done = platform.http("POST", f"{mount}/roles/app", json=body)
    assert done.status_code == 204, done.text


@pytest.fixture
def mount(platform: Platform, database: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "db-" + request.node.originalname.removeprefix("test_").replace("_", "-")
    configure(platform, database, name)
    yield name
    platform.http("DELETE", f"sys/mounts/{name}")


def creds(platform: Platform, mount: str, token: str = ROOT) -> Any:
    answer = platform.http("GET", f"{mount}/creds/app", token)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_app_works_with_a_user_until_its_token_is_revoked(
    platform: Platform, database: Postgres, mount: str
) -> None:
    """The picture that the product is for."""
    policy = f'path "{mount}/creds/app" {{ capabilities = ["read"] }}'
    platform.http("PUT", "sys/policies/acl/picture", json={"policy": policy})
    platform.http("POST", "sys/auth/picture", json={"type": "approle"})
    platform.http("POST", "auth/picture/role/api", json={"token_policies": "picture"})
    role_id = platform.http("GET", "auth/picture/role/api/role-id").json()["data"]["role_id"]
    secret = platform.http("POST", "auth/picture/role/api/secret-id").json()["data"]["secret_id"]
    login = {"role_id": role_id, "secret_id": secret}
    token = platform.http("POST", "auth/picture/login", None, json=login).json()["auth"][
        "client_token"
    ]
    made = creds(platform, mount, token)
    user = made["data"]
    with psycopg.connect(
        database.dsn(user["username"], user["password"]), autocommit=True
    ) as session:
        assert session.execute("SELECT current_user").fetchone() == (user["username"],)
        renewed = platform.http(
            "PUT", "sys/leases/renew", token, json={"lease_id": made["lease_id"], "increment": 600}
        ).json()
        assert renewed["lease_id"] == made["lease_id"]
        assert (renewed["lease_duration"], renewed["renewable"], renewed["data"]) == (
            600,
            True,
            None,
        )
        assert session.execute("SELECT 1").fetchone() == (1,)
        assert platform.http("POST", "auth/token/revoke-self", token).status_code == 204
        until(lambda: user["username"] not in database.users())
        until(lambda: is_cut_off(session))
    assert not database.logs_in(user["username"], user["password"])


def test_what_children_of_a_token_obtained_dies_with_it(
    platform: Platform, database: Postgres, mount: str
) -> None:
    def child(of: str) -> str:
        made = platform.http("POST", "auth/token/create", of, json={"policies": ["root"]})
        return str(made.json()["auth"]["client_token"])

    parent = child(ROOT)
    tokens = [parent, child(parent), child(child(parent))]
    names = [creds(platform, mount, token)["data"]["username"] for token in tokens]
    assert set(names) <= database.users()
    platform.http("POST", "auth/token/revoke", json={"token": parent})
    until(lambda: not set(names) & database.users())


def test_a_token_that_expires_takes_its_users_with_it(
    platform: Platform, database: Postgres, mount: str
) -> None:
    def made(seconds: int) -> str:
        body = {"policies": ["root"], "ttl": seconds, "no_parent": True}
        token = platform.http("POST", "auth/token/create", json=body).json()["auth"]["client_token"]
        return str(creds(platform, mount, token)["data"]["username"])

    name = while_it_lasts(made, 2)
    until(lambda: name not in database.users())


def test_the_last_use_of_a_token_gets_no_user(
    platform: Platform, database: Postgres, mount: str
) -> None:
    before = database.users()
    made = platform.http("POST", "auth/token/create", json={"policies": ["root"], "num_uses": 1})
    token = made.json()["auth"]["client_token"]
    refused = platform.http("GET", f"{mount}/creds/app", token)
    assert refused.status_code == 400
    assert "one use left" in refused.json()["errors"][0]
    until(lambda: database.users() == before)


def test_a_lease_ends_by_itself(platform: Platform, database: Postgres, mount: str) -> None:
    platform.http("POST", f"{mount}/roles/app", json={"default_ttl": "1s"})
    made = creds(platform, mount)
    until(lambda: made["data"]["username"] not in database.users())
    lookup = platform.http("PUT", "sys/leases/lookup", json={"lease_id": made["lease_id"]})
    until(
        lambda: (
            platform.http("PUT", "sys/leases/lookup", json={"lease_id": made["lease_id"]}).json()[
                "errors"
            ]
            == ["invalid lease"]
        )
    )
    assert lookup.status_code in (200, 400)


def until_gone(database: Postgres, name: str) -> None:
    until(lambda: name not in database.users())


def test_bao(platform: Platform, database: Postgres, mount: str) -> None:
    platform.bao(
        "write", f"{mount}/roles/app", "db_name=pg", f"creation_statements={CREATE}",
        "default_ttl=1h", "max_ttl=24h",
    )  # fmt: skip
    made = json.loads(platform.bao("read", "-format=json", f"{mount}/creds/app"))
    assert made["lease_duration"] == 3600
    assert database.logs_in(made["data"]["username"], made["data"]["password"])
    found = json.loads(platform.bao("lease", "lookup", "-format=json", made["lease_id"]))
    assert found["data"]["id"] == made["lease_id"]
    renewed = json.loads(
        platform.bao("lease", "renew", "-format=json", "-increment=2h", made["lease_id"])
    )
    assert renewed["lease_duration"] == 7200
    listed = platform.bao("list", f"sys/leases/lookup/{mount}/creds/app")
    assert made["lease_id"].rpartition("/")[2] in listed
    platform.bao("lease", "revoke", made["lease_id"])
    until_gone(database, made["data"]["username"])  # bao does not wait
    made = json.loads(platform.bao("read", "-format=json", f"{mount}/creds/app"))
    platform.bao("lease", "revoke", "-prefix", f"{mount}/creds")
    until_gone(database, made["data"]["username"])  # bao does not wait
    shown = platform.bao("read", f"{mount}/config/pg")
    assert PASSWORD not in shown
    assert "postgresql-database-plugin" in shown
    platform.bao("write", "-f", f"{mount}/reset/pg")
    platform.bao("delete", f"{mount}/roles/app")
    platform.bao("delete", f"{mount}/config/pg")


def test_hvac(platform: Platform, database: Postgres, mount: str) -> None:
    client = platform.hvac()
    engine = client.secrets.database
    engine.configure(
        "pg2", "postgresql-database-plugin", mount_point=mount, allowed_roles=["app"],
        connection_url=database.url, username=ADMIN, password=PASSWORD,
    )  # fmt: skip
    assert set(engine.list_connections(mount_point=mount)["data"]["keys"]) == {"pg", "pg2"}
    engine.create_role("app", "pg2", [CREATE], default_ttl=600, max_ttl=1200, mount_point=mount)
    assert engine.read_role("app", mount_point=mount)["data"]["creation_statements"] == [CREATE]
    made = engine.generate_credentials("app", mount_point=mount)
    assert made["lease_duration"] == 600
    assert database.logs_in(made["data"]["username"], made["data"]["password"])
    assert client.sys.read_lease(made["lease_id"])["data"]["renewable"]
    assert client.sys.renew_lease(made["lease_id"], increment=5000)["lease_duration"] <= 1200
    client.sys.revoke_lease(made["lease_id"])
    assert made["data"]["username"] not in database.users()
    made = engine.generate_credentials("app", mount_point=mount)
    client.sys.revoke_prefix(f"{mount}/")
    assert made["data"]["username"] not in database.users()


def test_grpc(platform: Platform, database: Postgres, mount: str) -> None:
    with platform.channel() as channel:
        with_token = (("x-vault-token", ROOT),)
        # The generated types are those of grpc.aio.
        roles: Any = role_pb2_grpc.RoleServiceStub(channel)  # type: ignore[arg-type]
        leases: Any = lease_pb2_grpc.LeaseServiceStub(channel)  # type: ignore[arg-type]
        seen: list[tuple[int, str]] = []
        watch = leases.WatchLeases(
            lease_pb2.WatchLeasesRequest(prefix=f"{mount}/creds"), metadata=with_token
        )
        next(watch)

        def follow() -> None:
            for message in watch:
                seen.extend((event.kind, event.lease_id) for event in message.events)
                if any(event.kind == 3 for event in message.events):
                    return

        follower = threading.Thread(target=follow)
        follower.start()
        made = roles.CreateCredentials(
            role_pb2.CreateCredentialsRequest(mount=mount, name="app"), metadata=with_token
        )
        assert database.logs_in(made.username, made.password)
        renewed = leases.RenewLease(
            lease_pb2.RenewLeaseRequest(lease_id=made.lease_id, increment=60), metadata=with_token
        )
        assert renewed.lease_duration == 60
        leases.RevokeLease(
            lease_pb2.RevokeLeaseRequest(lease_id=made.lease_id), metadata=with_token
        )
        assert made.username not in database.users()
        follower.join(120)
        watch.cancel()
        assert seen == [(kind, made.lease_id) for kind in (1, 2, 3)]
        with pytest.raises(grpc.RpcError) as caught:
            leases.LookupLease(
                lease_pb2.LookupLeaseRequest(lease_id=made.lease_id), metadata=with_token
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_policies_decide_who_may_act_on_a_lease(
    platform: Platform, database: Postgres, mount: str
) -> None:
    def token(policy: str) -> str:
        platform.http("PUT", f"sys/policies/acl/{mount}", json={"policy": policy})
        made = platform.http(
            "POST", "auth/token/create", json={"policies": [mount], "no_parent": True}
        )
        return str(made.json()["auth"]["client_token"])

    def status(operation: str, token: str, lease: str) -> int:
        body = {"lease_id": lease}
        return platform.http("PUT", f"sys/leases/{operation}", token, json=body).status_code

    reads = f'path "{mount}/creds/app" {{ capabilities = ["read"] }}'
    owner = token(reads)
    lease = creds(platform, mount, owner)["lease_id"]
    assert status("lookup", owner, lease) == status("renew", owner, lease) == 200
    other = token(reads)  # the policy default allows sys/leases/renew, for one's own
    assert status("lookup", other, lease) == status("revoke", other, lease) == 403
    for not_its_own in (lease, f"{mount}/creds/app/none"):
        body = {"lease_id": not_its_own}
        refused = platform.http("PUT", "sys/leases/renew", other, json=body)
        assert (refused.status_code, refused.json()["errors"]) == (400, ["lease not found"])
    operator = token('path "sys/leases/revoke/*" { capabilities = ["update"] }')
    assert platform.http("PUT", f"sys/leases/revoke/{lease}", operator).status_code == 204
    assert status("lookup", ROOT, lease) == 400


def test_a_connection_shows_what_was_left_to_its_plugin(platform: Platform, mount: str) -> None:
    shown = platform.http("GET", f"{mount}/config/pg").json()["data"]["connection_details"]
    assert shown["password_authentication"] == "password"


def test_a_quota_is_a_clear_429(platform: Platform, database: Postgres, mount: str) -> None:
    body = {"path": mount, "max_leases": 5}
    assert platform.http("POST", f"sys/quotas/lease-count/{mount}", json=body).status_code == 204
    before = database.users()
    answers: list[int] = []

    def ask() -> None:
        answers.append(platform.http("GET", f"{mount}/creds/app").status_code)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 5 + [429] * 15
    assert len(database.users() - before) == 5
    shown = platform.http("GET", f"sys/quotas/lease-count/{mount}").json()["data"]
    assert (shown["counter"], shown["max_leases"]) == (5, 5)
    refused = platform.http("GET", f"{mount}/creds/app").json()
    assert "lease count quota exceeded" in refused["errors"][0]
    platform.http("DELETE", f"sys/quotas/lease-count/{mount}")


def test_a_wrapped_user_can_be_unwrapped(
    platform: Platform, database: Postgres, mount: str
) -> None:
    wrapped = platform.http("GET", f"{mount}/creds/app", headers={"X-Vault-Wrap-TTL": "60"}).json()
    token = wrapped["wrap_info"]["token"]
    made = platform.http("POST", "sys/wrapping/unwrap", token).json()
    assert database.logs_in(made["data"]["username"], made["data"]["password"])
    assert made["lease_id"].startswith(f"{mount}/creds/app/")


def test_no_password_stands_in_logs_or_in_the_store(
    platform: Platform, database: Postgres, mount: str
) -> None:
    made = creds(platform, mount)["data"]
    platform.http("GET", f"{mount}/config/pg")
    stored = contents(platform.folder / "data" / "etcd")
    logs = (platform.audit_log, platform.folder / "output.log")
    for file, content in {**stored, **{log: log.read_bytes() for log in logs}}.items():
        for secret in (made["password"], PASSWORD):
            assert secret.encode() not in content, file
    assert made["username"].encode() not in b"".join(stored.values())


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("config/bad", {"plugin_name": "postgresql-database-plugin"}, 400, "connection_url"),
        ("config/bad", {"plugin_name": "none"}, 400, "plugin_name"),
        (
            "config/bad",
            {"plugin_name": "postgresql-database-plugin", "connection_url": "postgresql://127.0.0.1:1/x"},
            400,
            "refused",
        ),
        ("roles/bad", {"creation_statements": "x"}, 400, "db_name"),
        ("roles/bad", {"db_name": "pg", "default_ttl": "2h", "max_ttl": "1h"}, 400, "default_ttl"),
        ("roles/bad", {"db_name": "pg", "default_ttl": "soon"}, 400, "default_ttl"),
    ],
)  # fmt: skip
def test_bad_input_is_named(
    platform: Platform, mount: str, path: str, body: Any, status: int, message: str
) -> None:
    answer = platform.http("POST", f"{mount}/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["errors"][0]
    assert platform.http("GET", f"{mount}/{path}").status_code == 404


def test_what_the_database_says_comes_without_a_password(
    platform: Platform, database: Postgres, mount: str
) -> None:
    before = database.users()
    wrong = {"plugin_name": "postgresql-database-plugin", "connection_url": database.url}
    answer = platform.http(
        "POST", f"{mount}/config/wrong", json={**wrong, "username": ADMIN, "password": "hunter2"}
    )
    assert answer.status_code == 400
    assert "password authentication failed" in answer.text
    assert "hunter2" not in answer.text
    for statements, message in (
        ("CREAT ROLE x", "syntax error"),
        ([CREATE, 'GRANT SELECT ON none TO "{{name}}"'], "does not exist"),
        ('CREATE ROLE "{{nome}}"', "placeholder"),
        ([], "creation_statements"),
    ):
        platform.http("POST", f"{mount}/roles/app", json={"creation_statements": statements})
        answer = platform.http("GET", f"{mount}/creds/app")
        assert answer.status_code == 400, answer.text
        assert message in answer.json()["errors"][0]
    assert platform.http("GET", f"{mount}/creds/none").status_code == 400
    platform.http("POST", f"{mount}/roles/app", json={"db_name": "lost"})
    assert "db_name" in platform.http("GET", f"{mount}/creds/app").text
    assert database.users() == before
    counts = platform.http("GET", "sys/leases/count").json()["data"]["counts"] or {}
    assert counts.get(f"{mount}/", 0) == 0


def test_a_mount_is_disabled_after_its_last_user(
    platform: Platform, database: Postgres, mount: str
) -> None:
    names = {creds(platform, mount)["data"]["username"] for _ in range(5)}
    assert platform.http("DELETE", f"sys/mounts/{mount}").status_code == 204
    assert not names & database.users()
    assert platform.http("GET", f"{mount}/creds/app").status_code == 404


@pytest.mark.parametrize("kind", ["roles", "static-roles"])
def test_credentials_that_a_database_does_not_know_are_refused(
    platform: Platform, mount: str, kind: str
) -> None:
    body = {"db_name": "pg", "credential_type": "rsa_private_key"}
    if kind == "static-roles":
        body |= {"username": "someone", "rotation_period": "1h"}
    refused = platform.http("POST", f"{mount}/{kind}/app", json=body)
    assert refused.status_code == 400
    assert refused.json()["errors"] == [
        "credential_type: users of postgresql-database-plugin log in with password or client_certificate, "
        "not with rsa_private_key"
    ]
    # A role that was written before its connection is refused when it is used, and nothing is made.
    platform.http("POST", f"{mount}/roles/early", json=body | {"db_name": "late"})
    config = {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": "postgresql://127.0.0.1:1/x",
        "verify_connection": False,
        "allowed_roles": "*",
    }
    platform.http("POST", f"{mount}/config/late", json=config)
    refused = platform.http("GET", f"{mount}/creds/early")
    assert (refused.status_code, "rsa_private_key" in refused.text) == (400, True)
    assert platform.http("LIST", f"sys/leases/lookup/{mount}").status_code == 404


def test_a_mount_that_moves_ends_the_users_that_it_gave(
    platform: Platform, database: Postgres, mount: str
) -> None:
    old = creds(platform, mount)
    target = f"{mount}-moved"
    assert (
        platform.http("POST", "sys/remount", json={"from": mount, "to": target}).status_code == 200
    )
    until(lambda: old["data"]["username"] not in database.users())
    assert platform.http("LIST", f"sys/leases/lookup/{mount}").status_code == 404
    made = creds(platform, target)
    assert made["lease_id"].startswith(f"{target}/creds/app/")
    assert database.logs_in(made["data"]["username"], made["data"]["password"])
    renewed = platform.http("PUT", "sys/leases/renew", json={"lease_id": made["lease_id"]})
    assert renewed.status_code == 200
    assert platform.http("DELETE", f"sys/mounts/{target}").status_code == 204
    assert made["data"]["username"] not in database.users()

"""Whatever ends an identity ends every user that it obtained; and who sees what of the leases of others."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from strongroom.dbcreds.v1 import lease_pb2, lease_pb2_grpc
from tests.integration.databases import Postgres
from tests.integration.platforms import Platform, until
from tests.integration.test_dynamic_credentials import configure, creds
from tests.integration.test_token_leases import login


def _by_lease(platform: Platform, auth: str) -> None:
    (name,) = platform.http("LIST", f"sys/leases/lookup/auth/{auth}/login").json()["data"]["keys"]
    lease = {"lease_id": f"auth/{auth}/login/{name}"}
    assert platform.http("PUT", "sys/leases/revoke", json=lease).status_code == 204


def _by_prefix(platform: Platform, auth: str) -> None:
    answer = platform.http("PUT", f"sys/leases/revoke-prefix/auth/{auth}/login")
    assert answer.status_code == 204


def _by_disabling(platform: Platform, auth: str) -> None:
    assert platform.http("DELETE", f"sys/auth/{auth}").status_code == 204


def _by_moving(platform: Platform, auth: str) -> None:
    body = {"from": f"auth/{auth}", "to": f"auth/{auth}-moved"}
    assert platform.http("POST", "sys/remount", json=body).status_code == 200


@pytest.mark.parametrize("end", [_by_lease, _by_prefix, _by_disabling, _by_moving])
def test_what_a_login_obtained_dies_with_it(
    platform: Platform, database: Postgres, end: Callable[[Platform, str], None]
) -> None:
    auth, mount = f"ends{end.__name__}".replace("_", "-"), f"db{end.__name__}".replace("_", "-")
    configure(platform, database, mount)
    policy = (
        f'path "{mount}/creds/app" {{ capabilities = ["read"] }} '
        'path "auth/token/create" { capabilities = ["update"] }'
    )
    platform.http("PUT", f"sys/policies/acl/{mount}", json={"policy": policy})
    token = login(platform, auth, policies=mount)
    child = platform.http("POST", "auth/token/create", token, json={}).json()["auth"]
    doomed = {
        creds(platform, mount, each)["data"]["username"] for each in (token, child["client_token"])
    }
    kept = creds(platform, mount)["data"]["username"]
    end(platform, auth)
    until(lambda: not doomed & database.users())
    assert kept in database.users()
    assert platform.http("GET", f"{mount}/creds/app", token).status_code == 403
    platform.http("DELETE", f"sys/mounts/{mount}")


def test_events_are_shown_to_those_who_may_see_the_leases(
    platform: Platform, database: Postgres
) -> None:
    configure(platform, database, "watched", db_name="pg")
    platform.http("POST", "watched/config/pg", json={"allowed_roles": "*"})
    creation = platform.http("GET", "watched/roles/app").json()["data"]["creation_statements"]
    body = {"db_name": "pg", "creation_statements": creation}
    platform.http("POST", "watched/roles/seen", json=body)
    policy = (
        'path "sys/leases/events/watched/*" { capabilities = ["list"] } '
        'path "watched/creds/seen" { capabilities = ["read"] }'
    )
    platform.http("PUT", "sys/policies/acl/watcher", json={"policy": policy})
    made = platform.http("POST", "auth/token/create", json={"policies": ["watcher"]}).json()
    token = str(made["auth"]["client_token"])
    seen: list[str] = []
    ended: list[grpc.StatusCode] = []
    with platform.channel() as channel:
        leases: Any = lease_pb2_grpc.LeaseServiceStub(channel)  # type: ignore[arg-type]
        watch = leases.WatchLeases(
            lease_pb2.WatchLeasesRequest(prefix="watched/creds"),
            metadata=(("x-vault-token", token),),
        )
        next(watch)

        def follow() -> None:
            try:
                for message in watch:
                    seen.extend(event.lease_id for event in message.events)
            except grpc.RpcError as error:
                ended.append(error.code())

        follower = threading.Thread(target=follow)
        follower.start()
        platform.http("GET", "watched/creds/app")
        lease = platform.http("GET", "watched/creds/seen").json()["lease_id"]
        until(lambda: seen)
        assert seen == [lease]
        platform.http("POST", "auth/token/revoke", json={"token": token})
        follower.join(120)
    assert ended == [grpc.StatusCode.PERMISSION_DENIED]
    platform.http("DELETE", "sys/mounts/watched")


def test_a_lease_lasts_as_its_role_says_then_its_mount_and_no_longer_than_either(
    platform: Platform, database: Postgres
) -> None:
    configure(platform, database, "timed", default_ttl=0)

    def duration() -> int:
        return int(creds(platform, "timed")["lease_duration"])

    assert duration() == 2_764_800  # the system's
    tuned = {"default_lease_ttl": "10m", "max_lease_ttl": "30m"}
    platform.http("POST", "sys/mounts/timed/tune", json=tuned)
    assert duration() == 600
    platform.http("POST", "timed/roles/app", json={"default_ttl": "20m"})
    assert duration() == 1200
    platform.http("POST", "timed/roles/app", json={"default_ttl": "50m", "max_ttl": "2h"})
    made = creds(platform, "timed")
    assert made["lease_duration"] == 1800
    assert "exceeded the effective max_ttl" in made["warnings"][0]
    platform.http("POST", "timed/roles/app", json={"default_ttl": "5m", "max_ttl": "15m"})
    made = creds(platform, "timed")
    body = {"lease_id": made["lease_id"], "increment": "1h"}
    renewed = platform.http("PUT", "sys/leases/renew", json=body).json()
    assert 890 <= renewed["lease_duration"] <= 900
    assert "capped" in renewed["warnings"][0]
    platform.http("DELETE", "sys/mounts/timed")

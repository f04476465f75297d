"""Two platforms on one etcd, one of them on a machine whose clock is wrong by five minutes."""

import datetime
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Answer
from tests.integration.databases import Postgres
from tests.integration.platforms import Platform, start, start_beside, until, while_it_lasts
from tests.integration.test_dynamic_credentials import configure, creds

MOVED = Path(__file__).parent / "moved_clock"


@pytest.fixture(scope="module", params=[300, -300], ids=["ahead", "behind"])
def moved(
    request: pytest.FixtureRequest, shared_folder: Path, database: Postgres
) -> Iterator[tuple[Platform, Platform]]:
    """A platform, and one beside it with a moved clock."""
    folder = shared_folder / str(request.param)
    variables = {"PYTHONPATH": str(MOVED), "MOVED_CLOCK_SECONDS": str(request.param)}
    with (
        start(folder / "first") as first,
        start_beside(first, folder / "second", "all", variables) as second,
    ):
        told = second.http("GET", "sys/health").json()["server_time_utc"]
        assert abs(told - time.time() - request.param) < 60
        configure(first, database, "database", default_ttl="1h")
        yield first, second


def lookup(platform: Platform, made: Any) -> Answer:
    return platform.http("POST", "sys/leases/lookup", json={"lease_id": made["lease_id"]})


def test_leases_last_as_long_whoever_gives_and_whoever_ends_them(
    moved: tuple[Platform, Platform], database: Postgres
) -> None:
    for giver, other in (moved, moved[::-1]):
        made = creds(giver, "database")
        for asked in moved:
            shown = lookup(asked, made).json()["data"]
            assert 3570 <= shown["ttl"] <= 3600
            issued = datetime.datetime.fromisoformat(shown["issue_time"])
            assert abs(issued.timestamp() - time.time()) < 30
        time.sleep(3)  # what thinks that it has ended would end it now
        assert made["data"]["username"] in database.users()
        for asked, increment in ((other, 600), (giver, 5)):
            body = {"lease_id": made["lease_id"], "increment": increment}
            renewed = asked.http("PUT", "sys/leases/renew", json=body)
            assert renewed.json()["lease_duration"] == increment
        until(lambda name=made["data"]["username"]: name not in database.users())  # type: ignore[misc]


def test_tokens_and_wrapped_answers_last_as_long_whoever_gives_them(
    moved: tuple[Platform, Platform],
) -> None:
    for giver, asked in (moved, moved[::-1]):

        def begun(seconds: int, giver: Platform = giver) -> str:
            body = {"policies": ["default"], "ttl": seconds}
            made = giver.http("POST", "auth/token/create", json=body)
            token = str(made.json()["auth"]["client_token"])
            for platform in moved:
                shown = platform.http("GET", "auth/token/lookup-self", token)
                assert 0 < shown.json()["data"]["ttl"] <= seconds
            return token

        short = giver.http("GET", "sys/mounts", headers={"X-Vault-Wrap-TTL": "4"})
        token = while_it_lasts(begun, 8)
        headers = {"X-Vault-Wrap-TTL": "60"}
        wrapped = giver.http("GET", "sys/mounts", headers=headers).json()["wrap_info"]["token"]
        assert asked.http("POST", "sys/wrapping/unwrap", wrapped).status_code == 200
        for platform in moved:
            refused = partial(platform.http, "GET", "auth/token/lookup-self", token)
            until(lambda ask=refused: ask().status_code == 403)  # type: ignore[misc]
        gone = asked.http("POST", "sys/wrapping/unwrap", short.json()["wrap_info"]["token"])
        assert gone.status_code == 400

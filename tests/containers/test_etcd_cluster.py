"""The platform on three etcd members: one is killed under load, then two, and all come back."""

from collections.abc import Iterator

import pytest

from tests.containers.cluster import Member, cluster, leader
from tests.containers.writer import Writer
from tests.integration.platforms import TOPOLOGIES, Platform, start, until


@pytest.fixture(scope="module")
def members() -> Iterator[list[Member]]:
    with cluster() as members:
        yield members


@pytest.fixture(scope="module", params=TOPOLOGIES)
def platform(
    request: pytest.FixtureRequest, members: list[Member], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    # Both topologies follow each other on one cluster: the second finds a platform and opens it with the same key.
    folder = tmp_path_factory.getbasetemp() / "platform"
    endpoints = ",".join(member.endpoint for member in members)
    with start(folder, request.param, f"--etcd-endpoints={endpoints}") as platform:
        yield platform


def test_a_killed_leader_loses_no_acknowledged_write(
    platform: Platform, members: list[Member]
) -> None:
    with Writer(platform, "one") as one, Writer(platform, "two") as two:
        for writer in (one, two):
            writer.goes_on()
        victim = until(lambda: leader(members))
        victim.kill()
        for writer in (one, two):
            writer.goes_on()
        assert until(lambda: leader(members)) is not victim
        victim.revive()
        for writer in (one, two):
            writer.goes_on()
    for writer in (one, two):
        writer.check()


def test_without_a_majority_nothing_is_acknowledged(
    platform: Platform, members: list[Member]
) -> None:
    with Writer(platform, "majority") as writer:
        writer.goes_on()
        for member in members[:2]:
            member.kill()
        under_way = writer.tried  # may have been acknowledged before
        answer = platform.http("POST", "secret/data/none", json={"data": {"n": 1}})
        assert answer.status_code >= 500
        assert answer.json()["errors"]
        until(lambda: writer.tried > under_way + 1)
        assert writer.acknowledged <= under_way
        for member in members[:2]:
            member.revive()
        writer.goes_on()
    writer.check()


def test_a_killed_follower_is_hardly_noticed(platform: Platform, members: list[Member]) -> None:
    leading = until(lambda: leader(members))
    follower = next(member for member in members if member is not leading)
    with Writer(platform, "follower") as writer:
        writer.goes_on()
        follower.kill()
        writer.goes_on()
        follower.revive()
    writer.check()

"""The platform on three etcd members: one is killed under load, then two, and all come back."""

import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.containers.cluster import Member, cluster, leader
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


class Writer:
    """Counts one secret up, and knows which writes were acknowledged."""

    def __init__(self, platform: Platform, path: str) -> None:
        self.platform, self.path = platform, f"secret/data/{path}"
        self.tried = self.acknowledged = 0
        self.last = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            self.tried += 1
            body = {"data": {"n": self.tried}}
            try:
                answer = self.platform.http("POST", self.path, json=body)
            except requests.RequestException:
                continue
            if answer.ok:
                self.acknowledged, self.last = self.tried, time.monotonic()

    def check(self) -> None:
        """What was acknowledged is there, or what was tried after it."""
        found = self.platform.http("GET", self.path).json()["data"]["data"]["n"]
        assert self.acknowledged <= found <= self.tried

    def goes_on(self) -> None:
        now = time.monotonic()
        until(lambda: self.last > now, 30)


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
        time.sleep(1)  # what was under way has ended by then
        before = writer.acknowledged
        answer = platform.http("POST", "secret/data/none", json={"data": {"n": 1}})
        assert answer.status_code >= 500
        assert answer.json()["errors"]
        assert writer.acknowledged == before
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

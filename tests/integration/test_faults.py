"""Processes die; nothing that was acknowledged is lost, and the platform comes back by itself."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.platforms import ROOT, Platform, start, until

SERVICES = ("kv", "auth", "audit", "gateway", "seal", "etcd")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("faults"), "split") as platform:
        yield platform


class Writer(threading.Thread):
    """Writes versions of one secret, and remembers which were acknowledged."""

    def __init__(self, platform: Platform, path: str) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._path = path
        self._ending = threading.Event()
        self.acknowledged: dict[int, int] = {}
        self.failed = 0

    def run(self) -> None:
        session = requests.Session()
        number = 0
        while not self._ending.is_set():
            number += 1
            try:
                answer = session.post(
                    f"{self._platform.address}/v1/{self._path}",
                    json={"data": {"n": number}},
                    headers={"X-Vault-Token": ROOT}, verify=self._platform.ca, timeout=30,
                )  # fmt: skip
            except requests.RequestException:
                self.failed += 1
                session = requests.Session()
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                self.acknowledged[answer.json()["data"]["version"]] = number
            else:
                assert answer.status_code >= 500, answer.text
                self.failed += 1
                time.sleep(0.02)

    def end(self) -> None:
        self._ending.set()
        self.join(60)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_and_nothing_is_lost(split: Platform, service: str) -> None:
    path = f"secret/data/fault-{service}"
    split.http("POST", "secret/config", json={"max_versions": 100_000})
    writer = Writer(split, path)
    writer.start()
    until(lambda: len(writer.acknowledged) > 5)
    pid = split.child(service)
    split.kill(service)
    until(lambda: split.child(service) != pid)
    before = len(writer.acknowledged)
    until(lambda: len(writer.acknowledged) > before + 10, 60)
    writer.end()
    metadata = split.http("GET", f"secret/metadata/fault-{service}").json()["data"]
    for version in metadata["versions"]:  # none of them is half-written
        answer = split.http("GET", f"{path}?version={version}")
        assert answer.status_code == 200
        document = answer.json()["data"]["data"]
        if int(version) in writer.acknowledged:
            assert document == {"n": writer.acknowledged[int(version)]}
    assert set(map(str, writer.acknowledged)) <= set(metadata["versions"])


def test_the_state_survives_the_end_of_everything(tmp_path: Path) -> None:
    with start(tmp_path, "all") as platform:
        platform.bao("kv", "put", "secret/kept", "v=1")
        token = platform.http("POST", "auth/token/create", json={"policies": ["default"]}).json()
        for name in platform.pids:
            platform.kill(name)
        until(lambda: platform.http("GET", "secret/data/kept").status_code == 200)
    with start(tmp_path, "split", command="server") as again:
        assert again.bao("kv", "get", "-field=v", "secret/kept") == "1"
        text = token["auth"]["client_token"]
        assert again.http("GET", "auth/token/lookup-self", text).status_code == 200

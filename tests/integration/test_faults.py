"""Processes die; nothing that was acknowledged is lost, and the platform comes back by itself."""

import json
import os
import random
import signal
import socket
import ssl
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


def test_a_client_that_leaves_in_the_middle_leaves_nothing_half_written(split: Platform) -> None:
    split.http("POST", "secret/config", json={"max_versions": 100_000})
    host, _, port = split.address.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=split.ca)
    body = json.dumps({"data": {"n": "x" * 2000}}).encode()
    head = (
        f"POST /v1/secret/data/left HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {ROOT}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    request = head + body
    for number in range(200):
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            # Some leave in the middle of the request, some right after it, some a little later.
            secured.sendall(request[: len(request) * (number % 5 + 1) // 4])
            time.sleep(random.random() / 200)
    split.http("POST", "secret/data/left", json={"data": {"n": "last"}})
    versions = split.http("GET", "secret/metadata/left").json()["data"]["versions"]
    for version in versions:
        answer = split.http("GET", f"secret/data/left?version={version}")
        assert answer.status_code == 200, (version, answer.text)


def test_a_platform_that_has_lost_its_store_answers_nothing_from_memory(split: Platform) -> None:
    split.http("POST", "secret/data/warm", json={"data": {"v": 1}})
    session = requests.Session()

    def read() -> int:
        return session.get(
            f"{split.address}/v1/secret/data/warm", headers={"X-Vault-Token": ROOT},
            verify=split.ca, timeout=90,
        ).status_code  # fmt: skip

    assert read() == 200
    etcd = split.child("etcd")
    os.kill(etcd, signal.SIGSTOP)
    try:
        # While its lease is certain nobody else can have changed anything.
        until(lambda: read() != 200, 120)
        for _ in range(3):
            assert read() >= 500
    finally:
        os.kill(etcd, signal.SIGCONT)
    until(lambda: read() == 200, 120)


@pytest.mark.parametrize("topology", ["all", "split"])
def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path, topology: str) -> None:
    with start(tmp_path, topology) as platform:
        platform.http("POST", "secret/data/kept", json={"data": {"v": 1}})
        children = [platform.child(name) for name in platform.pids]
        platform.process.kill()
        platform.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    with start(tmp_path, topology, command="server") as again:
        answer = again.http("GET", "secret/data/kept")
        assert answer.ok, answer.text
        assert answer.json()["data"]["data"] == {"v": 1}


@pytest.mark.parametrize("topology", ["all", "split"])
def test_nobody_waits_for_the_leases_of_the_dead(tmp_path: Path, topology: str) -> None:
    log = tmp_path / "output.log"
    ended = "the membership of a dead process was ended"
    with start(tmp_path, topology) as platform:
        # One that its supervisor finds dead.
        platform.kill("server" if topology == "all" else "kv")
        until(lambda: ended in log.read_text())
        until(lambda: platform.http("POST", "secret/data/kept", json={"data": {"v": 1}}).ok)
        # All at once, as when the machine loses its power; stopped first, the supervisor starts none again.
        platform.process.send_signal(signal.SIGSTOP)
        for name in platform.pids:
            platform.kill(name)
        platform.process.kill()
        platform.process.wait()
    assert log.read_text().count(ended) == 1
    with start(tmp_path, topology, command="server") as again:
        assert again.http("GET", "secret/data/kept").ok
        servers = len(again.pids) - 1  # without etcd
        assert log.read_text().count(ended) == 1 + servers


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

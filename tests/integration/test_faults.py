"""Processes die; nothing that was acknowledged is lost, and the platform comes back by itself."""

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.client import AskError
from tests.integration.databases import Postgres
from tests.integration.platforms import ROOT, Platform, b64, start, until
from tests.integration.test_dynamic_credentials import configure

SERVICES = ("kv", "transit", "dbcreds", "auth", "audit", "gateway", "seal", "etcd")


@pytest.fixture(scope="module")
def split(shared_folder: Path, database: Postgres) -> Iterator[Platform]:
    with start(shared_folder, "split") as platform:
        assert platform.http("POST", "sys/mounts/transit", json={"type": "transit"}).ok
        configure(platform, database, "database")
        yield platform


class Writer(threading.Thread):
    """Writes to one path, and remembers what was acknowledged: the number of each, and what was answered.

    Args:
        platform: which is to answer.
        path: where to.
        body: makes what is written, of its number; None for paths that make something when they are read.
        pause: in seconds, after each, so that the load is light.
    """

    def __init__(
        self,
        platform: Platform,
        path: str,
        body: Callable[[int], Any] | None,
        pause: float = 0.01,
    ) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._path = path
        self._body = body
        self._pause = pause
        self._ending = threading.Event()
        self.acknowledged: list[tuple[int, Any]] = []
        self.failed = 0

    def run(self) -> None:
        client = self._platform.client()
        number = 0
        while not self._ending.is_set():
            number += 1
            try:
                answer = client.ask(
                    "GET" if self._body is None else "POST",
                    self._path,
                    ROOT,
                    json=None if self._body is None else self._body(number),
                )
            except AskError:
                self.failed += 1
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                self.acknowledged.append((number, answer.json()["data"]))
                time.sleep(self._pause)
            else:
                assert answer.status_code >= 500, answer.text
                self.failed += 1
                time.sleep(0.02)

    def end(self) -> None:
        self._ending.set()
        self.join(60)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_and_nothing_is_lost(
    split: Platform, database: Postgres, service: str
) -> None:
    before_all = database.users()
    path, key = f"secret/data/fault-{service}", f"transit/keys/fault-{service}"
    split.http("POST", "secret/config", json={"max_versions": 100_000})
    assert split.http("POST", key).ok
    writer = Writer(split, path, lambda number: {"data": {"n": number}})
    rotator = Writer(split, f"{key}/rotate", lambda _: {})
    encrypter = Writer(
        split,
        f"transit/encrypt/fault-{service}",
        lambda number: {"plaintext": b64(str(number).encode())},
    )
    asker = Writer(split, "database/creds/app", None, pause=0.1)
    writers = (writer, rotator, encrypter, asker)
    for each in writers:
        each.start()
    until(lambda: all(len(each.acknowledged) > 5 for each in writers))
    pid = split.child(service)
    split.kill(service)
    until(lambda: split.child(service) != pid)
    before = [len(each.acknowledged) for each in writers]
    until(lambda: all(len(w.acknowledged) > n + 10 for w, n in zip(writers, before, strict=True)))
    for each in writers:
        each.end()
    written = {answer["version"]: number for number, answer in writer.acknowledged}
    metadata = split.http("GET", f"secret/metadata/fault-{service}").json()["data"]
    for version in metadata["versions"]:  # none of them is half-written
        answer = split.http("GET", f"{path}?version={version}")
        assert answer.status_code == 200
        document = answer.json()["data"]["data"]
        if int(version) in written:
            assert document == {"n": written[int(version)]}
    assert set(map(str, written)) <= set(metadata["versions"])
    assert split.http("GET", key).json()["data"]["latest_version"] > len(rotator.acknowledged)
    items = [{"ciphertext": answer["ciphertext"]} for _, answer in encrypter.acknowledged]
    opened = split.http(
        "POST", f"transit/decrypt/fault-{service}", json={"batch_input": items}
    ).json()["data"]["batch_results"]
    numbers = [number for number, _ in encrypter.acknowledged]
    assert [each["plaintext"] for each in opened] == [b64(str(n).encode()) for n in numbers]
    assert {user["username"] for _, user in asker.acknowledged} <= database.users() - before_all
    # No user without a lease, also of those whose answer was lost, and none once all are revoked.
    until(lambda: len(database.users() - before_all) <= leases(split))
    until(lambda: split.http("PUT", "sys/leases/revoke-prefix/database").status_code == 204)
    assert database.users() <= before_all
    assert leases(split) == 0


def leases(platform: Platform) -> int:
    return int(platform.http("GET", "sys/leases/count").json()["data"]["lease_count"])


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
        until(lambda: read() != 200)
        for _ in range(3):
            assert read() >= 500
    finally:
        os.kill(etcd, signal.SIGCONT)
    until(lambda: read() == 200)


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

    def ended() -> int:
        return log.read_text().count("the membership of a dead process was ended")

    # On a busy machine some leases run out before the supervisor comes to them; hardly those of three attempts.
    with start(tmp_path, topology) as platform:
        for _ in range(3):  # one that its supervisor finds dead
            platform.kill("server" if topology == "all" else "kv")
            with contextlib.suppress(TimeoutError):
                until(ended, 15)
            until(lambda: platform.http("POST", "secret/data/kept", json={"data": {"v": 1}}).ok)
            if ended():
                break
        assert ended()
        lose_power(platform)
    for _ in range(3):  # all of them
        before = ended()
        with start(tmp_path, topology, command="server") as again:
            assert again.http("GET", "secret/data/kept").ok
            found, servers = ended() - before, len(again.pids) - 1  # without etcd
            lose_power(again)
        if found:
            break
    assert 1 <= found <= servers


def lose_power(platform: Platform) -> None:
    """Kills everything; the supervisor is stopped first, so that it starts nothing again."""
    platform.process.send_signal(signal.SIGSTOP)
    platform.kill(*platform.pids)
    platform.process.kill()
    platform.process.wait()


def test_the_state_survives_the_end_of_everything(tmp_path: Path) -> None:
    with start(tmp_path, "all") as platform:
        platform.bao("kv", "put", "secret/kept", "v=1")
        token = platform.http("POST", "auth/token/create", json={"policies": ["default"]}).json()
        platform.kill(*platform.pids)
        until(lambda: platform.http("GET", "secret/data/kept").status_code == 200)
    with start(tmp_path, "split", command="server") as again:
        assert again.bao("kv", "get", "-field=v", "secret/kept") == "1"
        text = token["auth"]["client_token"]
        assert again.http("GET", "auth/token/lookup-self", text).status_code == 200

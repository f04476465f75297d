"""Replicas of transit beside a platform: started, stopped and killed under load, and keys changed under load."""

import contextlib
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.integration.platforms import BIN, ROOT, Platform, b64, start, until

THREADS = 8


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("replicas"), "split") as platform:
        platform.http("POST", "sys/mounts/transit", json={"type": "transit"})
        yield platform


class Replica:
    """A process with transit alone, which the gateway finds through etcd."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        data = platform.folder / "data"
        folder.mkdir(parents=True)
        self._log = folder / "log"
        etcd = (data / "etcd" / "port").read_text().strip()
        command = [
            str(BIN / "strongroom"), "server", "--target=transit", f"--data-dir={folder / 'data'}",
            f"--etcd-endpoints=127.0.0.1:{etcd}", f"--etcd-pki-dir={data / 'pki'}",
            f"--pki-dir={data / 'pki'}", "--internal-listen=127.0.0.1:0",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def used(self) -> float:
        """Returns the seconds of CPU that the server process has used; the supervisor does nothing by itself."""
        children = psutil.Process(self.process.pid).children()
        return sum(sum(child.cpu_times()[:2]) for child in children)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(40) == 0, self._log.read_text()[-2000:]

    def kill(self) -> None:
        """Ends supervisor and server at once."""
        for process in [*psutil.Process(self.process.pid).children(), self.process]:
            process.kill()
        self.process.wait()


@contextlib.contextmanager
def replicas(platform: Platform, folder: Path, count: int) -> Iterator[list[Replica]]:
    """Runs replicas, and begins once each of them answers calls."""
    found = [Replica(platform, folder / f"replica-{number}") for number in range(count)]
    try:
        with load(platform, "warm"):
            for each in found:
                until(lambda each=each: each.used() > 0, 60)  # type: ignore[misc]
                before = each.used()
                until(lambda each=each, before=before: each.used() > before + 0.1, 60)  # type: ignore[misc]
        yield found
    finally:
        for each in found:
            if each.process.poll() is None:
                each.stop()  # cleanly: what dies is remembered until its lease ends, and could fail the next test


class Load:
    """Encrypts and decrypts in several threads, and keeps what went wrong."""

    def __init__(self, platform: Platform, key: str) -> None:
        self._platform = platform
        self._key = key
        self._stopping = threading.Event()
        self.done = 0
        self.failed: list[tuple[float, str]] = []

    def run(self) -> None:
        session = requests.Session()
        while not self._stopping.is_set():
            try:
                self.round_trip(session)
                self.done += 1
            except (AssertionError, requests.RequestException) as error:
                self.failed.append((time.monotonic(), repr(error)[:300]))

    def round_trip(self, session: requests.Session) -> None:
        made = self.call(session, "encrypt", {"plaintext": b64(b"text")})
        opened = self.call(session, "decrypt", {"ciphertext": made["ciphertext"]})
        assert opened["plaintext"] == b64(b"text")

    def call(self, session: requests.Session, operation: str, body: Any) -> Any:
        answer = session.post(
            f"{self._platform.address}/v1/transit/{operation}/{self._key}", json=body,
            headers={"X-Vault-Token": ROOT}, verify=self._platform.ca, timeout=30,
        )  # fmt: skip
        assert answer.status_code == 200, f"{operation}: {answer.status_code} {answer.text}"
        return answer.json()["data"]

    def stop(self) -> None:
        self._stopping.set()


@contextlib.contextmanager
def load(platform: Platform, key: str) -> Iterator[Load]:
    platform.http("POST", f"transit/keys/{key}")
    load = Load(platform, key)
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(load.run) for _ in range(THREADS)]
        try:
            yield load
        finally:
            load.stop()
    for future in futures:
        future.result()


def moves_on(load: Load, requests: int = 100) -> None:
    wanted = load.done + requests
    until(lambda: load.done >= wanted)


def test_replicas_come_and_leave_without_a_request_that_fails(
    platform: Platform, tmp_path: Path
) -> None:
    with load(platform, "coming") as running:
        for number in range(2):
            with replicas(platform, tmp_path / str(number), 2) as both:
                moves_on(running)
                both[0].stop()
                moves_on(running)
                both[1].stop()
                moves_on(running)
    assert running.failed == []


def test_a_replica_that_is_killed_is_passed_over(platform: Platform, tmp_path: Path) -> None:
    with load(platform, "killed") as running, replicas(platform, tmp_path / "x", 2) as both:
        moves_on(running)
        killed_at = time.monotonic()
        both[0].kill()
        time.sleep(6)
        moves_on(running)
        # What was with it is lost; nothing else is, once its connection has broken.
        late = [failure for failure in running.failed if failure[0] > killed_at + 5]
        assert late == []
        assert len(running.failed) <= THREADS
        assert all(" 503 " in text for _, text in running.failed)


def test_keys_that_change_under_load_are_right_on_four_replicas(
    platform: Platform, tmp_path: Path
) -> None:
    wrong: Counter[str] = Counter()
    own = threading.local()

    def in_parallel(check: Callable[[requests.Session], None]) -> None:
        """Asks so many at a time that every replica is asked."""

        def one(_: int) -> None:
            if not hasattr(own, "session"):
                own.session = requests.Session()
            try:
                check(own.session)
            except (AssertionError, pytest.fail.Exception) as error:
                wrong[str(error)[:200]] += 1

        list(threads.map(one, range(2 * THREADS)))

    with (
        load(platform, "changing") as running,
        replicas(platform, tmp_path / "x", 4) as four,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        before = [each.used() for each in four]
        for version in range(2, 27):
            assert platform.http("POST", "transit/keys/changing/rotate").ok

            def new_version(session: requests.Session, version: int = version) -> None:
                made = running.call(session, "encrypt", {"plaintext": b64(b"x")})
                assert made["key_version"] == version, "an older version was used"
                running.call(session, "decrypt", {"ciphertext": made["ciphertext"]})

            in_parallel(new_version)
        old = running.call(
            requests.Session(), "encrypt", {"plaintext": b64(b"x"), "key_version": 1}
        )

        def refused(session: requests.Session) -> None:
            with pytest.raises(AssertionError, match="decrypt: 400"):
                running.call(session, "decrypt", {"ciphertext": old["ciphertext"]})

        for _ in range(10):
            opened = {"min_decryption_version": 1, "min_encryption_version": 0}
            assert platform.http("POST", "transit/keys/changing/config", json=opened).ok
            in_parallel(lambda s: running.call(s, "decrypt", {"ciphertext": old["ciphertext"]}))
            closed = {"min_decryption_version": 26}
            assert platform.http("POST", "transit/keys/changing/config", json=closed).ok
            in_parallel(refused)
        for number in range(20):
            name = f"made-{number}"
            assert platform.http("POST", f"transit/keys/{name}").ok
            made = Load(platform, name)
            in_parallel(made.round_trip)
        after = [each.used() for each in four]
    assert running.failed == []
    assert wrong == {}
    assert all(late > early for early, late in zip(before, after, strict=True))

"""The audit service hangs: requests wait or fail, none passes unlogged, and everything heals by itself."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil

from tests.integration.client import AskError
from tests.integration.platforms import ROOT, Platform, start, until

HANGS_SECONDS = 20


class Load(threading.Thread):
    """Writes and reads under names of its own, and remembers which requests were answered with success."""

    def __init__(self, platform: Platform, number: int) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._number = number
        self._ending = threading.Event()
        self.answered: list[str] = []  # request ids
        self.times: list[tuple[float, float]] = []  # when each of these was begun, and was answered
        self.failed: list[int] = []

    def run(self) -> None:
        client, count = self._platform.client(), 0
        while not self._ending.is_set():
            count += 1
            method = "POST" if count % 2 else "GET"
            began = time.monotonic()
            try:
                body = {"data": {"n": count}} if count % 2 else None
                answer = client.ask(method, f"secret/data/load-{self._number}", ROOT, json=body)
            except AskError:
                continue
            if answer.ok:
                self.times.append((began, time.monotonic()))
                self.answered.append(answer.json()["request_id"])
            else:
                self.failed.append(answer.status_code)
                time.sleep(0.05)

    def end(self) -> None:
        self._ending.set()
        self.join(120)
        assert not self.is_alive()


def test_nothing_passes_while_the_audit_service_hangs(tmp_path: Path) -> None:
    with start(tmp_path, "split") as platform:
        loads = [Load(platform, number) for number in range(6)]
        for load in loads:
            load.start()
        until(lambda: all(len(load.answered) > 5 for load in loads))
        audit = platform.child("audit")
        os.kill(audit, signal.SIGSTOP)
        try:
            until(lambda: psutil.Process(audit).status() == psutil.STATUS_STOPPED)
            stopped = time.monotonic()
            time.sleep(HANGS_SECONDS)
        finally:
            hung = time.monotonic()
            os.kill(audit, signal.SIGCONT)
        # What was written before the stop may be answered after it.
        times = [each for load in loads for each in load.times]
        assert [each for each in times if each[0] > stopped and each[1] < hung] == []
        after = [len(load.answered) for load in loads]
        until(
            lambda: all(
                len(load.answered) > count + 5 for load, count in zip(loads, after, strict=True)
            ),
            60,
        )
        for load in loads:
            load.end()
        assert {status for load in loads for status in load.failed} <= {500, 503, 504}
        logged: dict[str, set[str]] = {}
        for line in platform.audit_log.read_text().splitlines():
            entry = json.loads(line)
            if "request" in entry:
                logged.setdefault(entry["request"]["id"], set()).add(entry["type"])
        for load in loads:
            for request_id in load.answered:
                assert logged.get(request_id) == {"request", "response"}

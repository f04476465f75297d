"""A client that writes all the while, and knows what it was told."""

import threading
import time
from typing import Any, Protocol

from tests.integration.platforms import until


class Server(Protocol):
    """A platform, as a client sees it."""

    def http(self, method: str, path: str, token: str = ..., *, json: Any = ...) -> Any:
        """Sends a request."""
        ...


class Writer:
    """Counts one secret up, and knows which writes were acknowledged."""

    def __init__(self, platform: Server, path: str) -> None:
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
            except OSError:
                continue
            if answer.ok:
                self.acknowledged, self.last = self.tried, time.monotonic()

    def check(self) -> None:
        """What was acknowledged is there, or what was tried after it."""
        found = self.platform.http("GET", self.path).json()["data"]["data"]["n"]
        assert self.acknowledged <= found <= self.tried

    def goes_on(self) -> None:
        now = time.monotonic()
        until(lambda: self.last > now)

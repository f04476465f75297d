"""Structured logs: one JSON object a line, on standard error.

Log records carry a fixed message and fields in `extra`; never a secret, a token, or a value that a client
sent. Exceptions are logged with their type and the lines of code they passed, without their text, which could
quote a value.
"""

import datetime
import logging
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Turns a log record into one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line for a record."""
        return msgspec.json.encode(self.members(record)).decode()

    def members(self, record: logging.LogRecord) -> dict[str, Any]:
        """Returns what the line for a record says, by names."""
        created = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": created.isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = value if isinstance(value, str | int | float | bool) else repr(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _places(record.exc_info[2])
        return line


class Seldom(logging.Filter):
    """Lets what a library says again and again through once in a while.

    Args:
        library: how the names of its loggers begin.
        seconds: from one time to the next, for each of its messages whatever stands in it.
        now: tells seconds that never go back.
    """

    def __init__(
        self, library: str, seconds: float = 600.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._library = library
        self._seconds = seconds
        self._now = now
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record goes on."""
        if not record.name.startswith(self._library):
            return True
        message, now = (record.name, str(record.msg)), self._now()
        if now - self._said.get(message, -self._seconds) < self._seconds:
            return False
        self._said[message] = now
        return True


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Sends all logs of this process to a stream (standard error by default) as JSON.

    Raises:
        ValueError: `level` is not one of debug, info, warning, error.
    """
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("log level must be one of debug, info, warning, error")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    handler.addFilter(Seldom("opentelemetry."))  # of a collector that is away, every few seconds
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())

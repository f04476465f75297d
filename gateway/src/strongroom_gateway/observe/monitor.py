"""The log of this process, as it is written, for those who look on (Vault documentation, "/sys/monitor")."""

import asyncio
import logging
from collections.abc import AsyncGenerator

from strongroom_gateway.observe import loggers
from strongroom_runtime.errors import invalid
from strongroom_runtime.logs import JsonFormatter

# Of a reader who is slow so many lines are kept; what comes then is counted and not kept.
_WAITING = 512
_FORMATS = ("", "standard", "json")


class _Lines(logging.Handler):
    """Puts lines in a queue of the event loop, whichever thread writes them."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._loop = asyncio.get_running_loop()
        self._missed = 0
        self.waiting: asyncio.Queue[str] = asyncio.Queue(_WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record."""
        line = self.format(record)
        self._loop.call_soon_threadsafe(self._put, line)

    def _put(self, line: str) -> None:
        if self.waiting.full():
            self._missed += 1
            return
        if self._missed:
            line, self._missed = f"({self._missed} lines were missed)\n{line}", 0
        self.waiting.put_nowait(line)


class StandardFormatter(logging.Formatter):
    """Lines for people: time, level, logger, message, fields."""

    def __init__(self) -> None:
        super().__init__()
        self._json = JsonFormatter("")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line for a record."""
        line = self._json.members(record)
        time, level = line.pop("time"), line.pop("level").upper()
        name, message = line.pop("logger"), line.pop("message")
        line.pop("service")
        rest = "".join(f" {key}={value}" for key, value in line.items())
        return f"{time} [{level}] {name}: {message}{':' if rest else ''}{rest}"


async def lines(level: str, form: str) -> AsyncGenerator[str]:
    """Yields what this process logs from now on; a level below its own shows nothing more.

    Args:
        level: of the least record that is shown; info where empty.
        form: standard or json; standard where empty.

    Raises:
        ServiceError: INVALID.
    """
    number = loggers.LEVELS.get(level.lower() or "info")
    if number is None:
        raise invalid("unknown log level")
    if form not in _FORMATS:
        raise invalid("unknown log format")
    handler = _Lines(JsonFormatter("gateway") if form == "json" else StandardFormatter())
    handler.setLevel(number)
    logging.getLogger().addHandler(handler)
    try:
        yield ""  # it has begun
        while True:
            yield await handler.waiting.get() + "\n"
    finally:
        logging.getLogger().removeHandler(handler)

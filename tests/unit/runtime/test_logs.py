"""Structured logs."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from strongroom_runtime import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("kv", "info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_one_json_object_with_its_fields(stream: io.StringIO) -> None:
    logging.getLogger("x").info("started", extra={"port": 8200})
    line = json.loads(stream.getvalue())
    assert (line["service"], line["message"], line["port"]) == ("kv", "started", 8200)


def test_the_text_of_an_exception_is_not_logged(stream: io.StringIO) -> None:
    try:
        raise ValueError("hunter2")
    except ValueError:
        logging.getLogger("x").exception("failed")
    line = json.loads(stream.getvalue())
    assert "hunter2" not in stream.getvalue()
    assert line["exception"] == "ValueError"
    assert "test_logs.py" in line["at"][0]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="log level must be one of"):
        logs.configure("kv", "loud")


def test_what_a_library_says_again_and_again_is_said_once_in_a_while(stream: io.StringIO) -> None:
    clock = iter([0.0, 5.0, 6.0, 601.0])
    seldom = logs.Seldom("opentelemetry.", 600, lambda: next(clock))
    logging.getLogger().handlers[0].filters[:] = [seldom]
    exporter = logging.getLogger("opentelemetry.exporter")
    exporter.warning("away for %d s", 1)
    exporter.warning("away for %d s", 2)
    exporter.warning("another")
    exporter.warning("away for %d s", 3)
    for _ in range(2):
        logging.getLogger("strongroom").warning("ours")
    said = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert said == ["away for 1 s", "another", "away for 3 s", "ours", "ours"]


def test_opentelemetry_says_seldom_that_a_collector_is_away(stream: io.StringIO) -> None:
    for seconds in range(3):
        logging.getLogger("opentelemetry.exporter").warning("away for %d s", seconds)
    assert len(stream.getvalue().splitlines()) == 1

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

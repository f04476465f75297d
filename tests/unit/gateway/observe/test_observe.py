"""What operators look at."""

import asyncio
import json
import logging

import pytest
from tests.fakes.store import MemoryStore

from strongroom_gateway.http import server
from strongroom_gateway.observe import loggers
from strongroom_gateway.observe.host import host_info
from strongroom_gateway.observe.monitor import lines
from strongroom_gateway.observe.shown_metrics import as_json, as_prometheus
from strongroom_gateway.observe.versions import VersionHistory
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.metrics import Metrics


async def test_each_version_is_noted_once_and_in_order() -> None:
    store = MemoryStore()
    for version, now in (("1", 10.0), ("2", 20.0), ("1", 30.0), ("2", 40.0)):
        await VersionHistory(store).note(version, now)
    known = await VersionHistory(store).all()
    assert [(each.version, each.since) for each in known] == [("1", 10.0), ("2", 20.0)]


def test_metrics_in_both_forms() -> None:
    metrics = Metrics()
    metrics.ended(metrics.begun(), "read", "kv", "ok")
    kind, text = as_prometheus(metrics.registry)
    assert kind.startswith("text/plain; version=0.0.4")
    assert b'strongroom_requests_total{mount_type="kv",operation="read",outcome="ok"} 1.0' in text
    kind, document = as_json(metrics.registry)
    shown = json.loads(document)
    assert kind == "application/json"
    (sample,) = [s for s in shown["Samples"] if s["Name"] == "strongroom_request_duration_seconds"]
    assert (sample["Count"], sample["Labels"]) == (1, {"operation": "read", "mount_type": "kv"})
    (counter,) = [c for c in shown["Counters"] if c["Name"] == "strongroom_requests_total"]
    assert counter["Count"] == 1
    assert {g["Name"] for g in shown["Gauges"]} >= {"strongroom_sealed"}


def test_the_levels_of_loggers_are_set_and_reset() -> None:
    name = server.log.name
    before = loggers.level(name)
    try:
        loggers.set_level(name, "debug")
        assert loggers.level(name) == "debug"
        loggers.set_all("error")
        assert {loggers.level(each) for each in loggers.names()} == {"error"}
    finally:
        loggers.set_all("")
    assert loggers.level(name) == before


@pytest.mark.parametrize(
    ("name", "level", "text"),
    [
        (server.log.name, "loud", "level"),
        ("urllib3", "debug", "name"),
        ("nowhere", "debug", "name"),
    ],
)
def test_other_loggers_and_levels_are_refused(name: str, level: str, text: str) -> None:
    with pytest.raises(ServiceError, match=text):
        loggers.set_level(name, level)


async def test_log_lines_come_as_they_are_written() -> None:
    log = logging.getLogger("strongroom_test")
    log.setLevel(logging.DEBUG)
    shown = lines("warn", "")
    assert await anext(shown) == ""
    log.info("not shown")
    log.warning("look here", extra={"count": 3})
    line = await anext(shown)
    assert "[WARNING] strongroom_test: look here: count=3\n" in line
    await shown.aclose()
    as_json = lines("", "json")
    await anext(as_json)
    log.error("again")
    assert json.loads(await anext(as_json))["message"] == "again"
    await as_json.aclose()
    assert not any(type(handler).__name__ == "_Lines" for handler in logging.getLogger().handlers)


@pytest.mark.parametrize(
    ("level", "form", "text"), [("bogus", "", "log level"), ("", "x", "log format")]
)
async def test_a_log_that_cannot_be_shown_is_refused(level: str, form: str, text: str) -> None:
    with pytest.raises(ServiceError, match=text):
        await anext(lines(level, form))


async def test_who_reads_a_log_slowly_misses_lines_and_is_told() -> None:
    log = logging.getLogger("strongroom_test")
    shown = lines("", "")
    await anext(shown)
    for number in range(600):
        log.warning("line", extra={"number": number})
    await asyncio.sleep(0)
    seen = [await anext(shown) for _ in range(512)]
    log.warning("after")
    assert "(88 lines were missed)" in await anext(shown)
    assert "number=511" in seen[-1]
    await shown.aclose()


def test_the_machine_is_described() -> None:
    info = host_info()
    assert info["memory"]["total"] > info["memory"]["available"] > 0
    assert len(info["cpu"]) == len(info["cpu_times"]) > 0
    assert info["disk"][0]["total"] > 0
    assert info["host"]["hostname"]

"""What stands in audit entries: Vault's shape, and every text as an HMAC."""

import hmac
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_gateway.audit import entries
from strongroom_gateway.audit.entries import (
    Device,
    Outcome,
    Subject,
    request_entry,
    response_entry,
)
from strongroom_gateway.audit.redact import Hasher
from strongroom_runtime.context import MountContext, TokenContext

SALT = b"salt of the device"


def hashed(text: str) -> str:
    return "hmac-sha256:" + hmac.digest(SALT, text.encode(), "sha256").hex()


def device(*, plain_accessors: bool = False) -> Device:
    return Device("file/", Hasher(SALT), plain_accessors)


def subject(**fields: Any) -> Subject:
    usual: dict[str, Any] = {
        "request_id": "r-1",
        "operation": "update",
        "path": 'secret/data/"quoted"',
        "mount": MountContext("secret/", "kv", "u", "kv_1"),
        "client_address": "192.0.2.1",
        "trace_id": "t" * 32,
        "token_text": "srs.text",
        "wrap_ttl": 60,
        "parameters": {"data": {"password": "hunter2", "port": 5432, "on": True, "none": None}},
        "token": TokenContext("id-1", "acc", "display", ("default", "app"), "entity"),
    }
    return Subject(**{**usual, **fields})


def test_a_request() -> None:
    entry = json.loads(request_entry(subject(), device(), ""))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "type": "request",
        "auth": {
            "client_token": hashed("srs.text"),
            "accessor": hashed("acc"),
            "display_name": "display",
            "policies": ["default", "app"],
            "token_policies": ["default", "app"],
            "entity_id": "entity",
            "token_type": "service",
        },
        "request": {
            "id": "r-1",
            "operation": "update",
            "namespace": {"id": "root"},
            "path": 'secret/data/"quoted"',
            "remote_address": "192.0.2.1",
            "mount_point": "secret/",
            "mount_type": "kv",
            "mount_accessor": "kv_1",
            "client_token": hashed("srs.text"),
            "client_token_accessor": hashed("acc"),
            "data": {
                "data": {"password": hashed("hunter2"), "port": 5432, "on": True, "none": None}
            },
            "wrap_ttl": 60,
        },
        "trace_id": "t" * 32,
    }


def test_an_answer() -> None:
    outcome = Outcome(
        data=msgspec.Raw(b'{"data":{"password":"hunter2"},"version":1,"empty":""}'),
        auth={"client_token": "srs.new", "accessor": "acc2", "policies": ["app"]},
        wrap_info={"token": "srs.wrap", "accessor": "acc3", "creation_path": "secret/data/a"},
        lease_id="lease-1",
    )
    about = subject()
    first = json.loads(request_entry(about, device(), ""))
    entry = json.loads(response_entry(about, device(), outcome))
    assert (entry["auth"], entry["request"]) == (first["auth"], first["request"])
    assert entry["response"] == {
        "mount_type": "kv",
        "mount_accessor": "kv_1",
        "data": {"data": {"password": hashed("hunter2")}, "version": 1, "empty": ""},
        "auth": {
            "client_token": hashed("srs.new"),
            "accessor": hashed("acc2"),
            "policies": ["app"],
        },
        "wrap_info": {
            "token": hashed("srs.wrap"),
            "accessor": hashed("acc3"),
            "creation_path": "secret/data/a",
        },
        "secret": {"lease_id": "lease-1"},
    }


def test_a_token_that_nobody_knows_is_hashed() -> None:
    entry = json.loads(
        request_entry(subject(token=None, mount=None), device(), 'permission "denied"')
    )
    assert entry["auth"] == {"token_type": "default"}
    assert entry["request"]["client_token"] == hashed("srs.text")
    assert "mount_type" not in entry["request"]
    assert entry["error"] == 'permission "denied"'
    nobody = json.loads(request_entry(subject(token=None, token_text=""), device(), ""))
    assert "client_token" not in nobody["request"]


def test_a_request_without_an_answer_to_speak_of() -> None:
    entry = json.loads(response_entry(subject(mount=None), device(), Outcome()))
    assert entry["response"] == {}


def test_accessors_stand_as_they_are_where_the_device_says_so() -> None:
    entry = json.loads(
        response_entry(
            subject(), device(plain_accessors=True), Outcome(auth={"accessor": "acc2", "x": "y"})
        )
    )
    assert entry["auth"]["accessor"] == "acc"
    assert entry["request"]["client_token_accessor"] == "acc"
    assert entry["response"]["auth"] == {"accessor": "acc2", "x": hashed("y")}


def test_keys_that_a_mount_shows_as_they_are() -> None:
    config = b'{"audit_non_hmac_request_keys":["port"],"audit_non_hmac_response_keys":["password"]}'
    mount = MountContext("secret/", "kv", "u", "kv_1", config=config)
    about = subject(mount=mount, operation="read", parameters={"port": "1", "password": "p"})
    outcome = Outcome(data=msgspec.Raw(b'{"port":"1","password":"p"}'))
    tested = device()
    request = json.loads(request_entry(about, tested, ""))["request"]["data"]
    answer = json.loads(response_entry(about, tested, outcome))["response"]["data"]
    assert request == {"port": "1", "password": hashed("p")}
    assert answer == {"port": hashed("1"), "password": "p"}
    # The same document on another mount is hashed in its own way.
    other = json.loads(response_entry(subject(operation="read"), tested, outcome))["response"][
        "data"
    ]
    assert other == {"port": hashed("1"), "password": hashed("p")}


def test_a_token_that_changed_is_described_anew() -> None:
    tested = device()
    request_entry(subject(), tested, "")
    later = TokenContext("id-1", "acc", "display", ("other",))
    entry = json.loads(request_entry(subject(token=later), tested, ""))
    assert entry["auth"]["policies"] == ["other"]


def test_what_no_json_can_say_is_hidden_and_not_an_error() -> None:
    about = subject(parameters={"odd": object(), "secret": "hunter2"})
    entry = json.loads(request_entry(about, device(), ""))
    assert entry["request"]["data"].startswith("hmac-sha256:")
    broken = json.loads(response_entry(subject(), device(), Outcome(data=msgspec.Raw(b"{"))))
    assert broken["response"]["data"].startswith("hmac-sha256:")


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def naive(value: Any) -> Any:
    if isinstance(value, str):
        return hashed(value) if value else value
    if isinstance(value, dict):
        return {key: naive(each) for key, each in value.items()}
    return [naive(each) for each in value] if isinstance(value, list) else value


@given(_json)
def test_every_text_is_hashed_the_first_time_and_every_time(value: Any) -> None:
    hasher = Hasher(SALT)
    document = msgspec.Raw(msgspec.json.encode(value))
    for _ in range(2):
        assert json.loads(hasher.document(document)) == naive(value)
    assert json.loads(hasher.json(value)) == naive(value)


class Row(msgspec.Struct):
    name: Any = msgspec.UNSET
    secret: Any = msgspec.UNSET
    other: Any = msgspec.UNSET


_cells = st.one_of(
    st.just(msgspec.UNSET), st.none(), st.integers(0, 2), st.text(), st.binary(), _json
)


@given(st.lists(st.builds(Row, name=st.text(), secret=st.binary() | st.just(""), other=_cells)))
def test_rows_are_hashed_as_the_json_that_they_are_written_as(rows: list[Row]) -> None:
    hasher, plain = Hasher(SALT), frozenset({"name"})
    expected = hasher.json(msgspec.Raw(msgspec.json.encode({"rows": rows})), plain)
    assert json.loads(hasher.json({"rows": rows}, plain)) == json.loads(expected)


@pytest.mark.parametrize(
    ("operation", "kept"), [("read", 1), ("list", 1), ("scan", 1), ("update", 0), ("delete", 0)]
)
def test_documents_of_reads_alone_are_kept(operation: str, kept: int) -> None:
    tested = device()
    outcome = Outcome(data=msgspec.Raw(b'{"ciphertext":"vault:v1:x"}'))
    for _ in range(2):
        entry = json.loads(response_entry(subject(operation=operation), tested, outcome))
        assert entry["response"]["data"] == {"ciphertext": hashed("vault:v1:x")}
    assert len(tested.hasher._kept) == kept


def test_what_is_kept_holds_no_plaintext() -> None:
    tested = device()
    outcome = Outcome(data=msgspec.Raw(b'{"password":"hunter2"}'))
    response_entry(subject(operation="read"), tested, outcome)
    assert tested.hasher._kept
    kept = repr((tested.hasher._kept, tested._tokens))
    assert "hunter2" not in kept
    assert "srs.text" not in kept


def test_what_is_said_of_tokens_takes_no_more_memory_than_is_meant_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who makes tokens says what they are called."""
    monkeypatch.setattr(entries, "_TOKENS_BYTES", 5_000_000)
    log = device()
    usual = TokenContext("usual", "acc", "display", ("default",))
    said = log.about(usual, "srs.text")
    assert log.about(usual, "srs.text") is said
    for number in range(2_000):
        log.about(TokenContext(str(number), "acc", "a" * 1_500), "srs.text")
    assert log.about(usual, "srs.text") is not said

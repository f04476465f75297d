"""Web pages of other origins."""

import pytest

from strongroom_gateway.http.cors import Cors, check
from strongroom_runtime.errors import Kind, ServiceError

ONE = Cors(True, ("https://a.example",), ("X-Mine",))


def test_an_allowed_origin_is_named_in_the_answer() -> None:
    assert check(ONE, "https://a.example", "GET", None) == (
        ("access-control-allow-origin", "https://a.example"),
        ("vary", "Origin"),
    )


@pytest.mark.parametrize("origin", ["https://b.example", "https://a.example.evil", "null", "*"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_other_origins_are_refused(origin: str, method: str) -> None:
    with pytest.raises(ServiceError, match="origin not allowed") as caught:
        check(ONE, origin, method, "GET")
    assert caught.value.kind is Kind.DENIED


def test_a_preflight_request_learns_what_may_be_sent() -> None:
    headers = dict(check(ONE, "https://a.example", "OPTIONS", "LIST"))
    assert "LIST" in headers["access-control-allow-methods"].split(",")
    allowed = headers["access-control-allow-headers"].split(",")
    assert {"X-Vault-Token", "X-Mine"} <= set(allowed)
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("asked", [None, "BREW", "get"])
def test_a_preflight_request_for_another_method_is_refused(asked: str | None) -> None:
    with pytest.raises(ServiceError) as caught:
        check(ONE, "https://a.example", "OPTIONS", asked)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_a_wildcard_stands_for_every_origin() -> None:
    cors = Cors(True, ("*",), credentials=True)
    headers = dict(check(cors, "https://z.example", "GET", None))
    assert headers["access-control-allow-origin"] == "https://z.example"
    assert headers["access-control-allow-credentials"] == "true"

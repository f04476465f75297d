"""What both wires make of a request."""

import pytest

from strongroom_gateway.call import names, trace_of, wrap_ttl_of
from strongroom_runtime.errors import ServiceError

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FRESH = next(names)[1]


def test_the_trace_context_of_a_client_is_taken() -> None:
    assert trace_of(TRACE, FRESH) == (TRACE, True)
    assert trace_of("cc" + TRACE[2:], FRESH)[1]  # of a later version


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "a-b-c-d",
        TRACE.upper(),
        TRACE + "-more",
        TRACE + "\n",
        " " + TRACE,
        "ff" + TRACE[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        TRACE.replace("0af7", "0ag7"),
        TRACE.replace("1", "\u0661"),
        "00-" + "a" * 100_000,
    ],
)
def test_what_is_none_is_replaced(sent: str | None) -> None:
    assert trace_of(sent, FRESH) == (FRESH, False)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", None),
        ("0s", None),
        ("5", 5),
        ("1m", 60),
        ("1.9s", 1),
        ("100ms", 1),
        ("0.5", 1),
        ("1ns", 1),
    ],
)
def test_an_answer_that_was_to_be_wrapped_is_wrapped(sent: str | None, seconds: int | None) -> None:
    assert wrap_ttl_of(sent) == seconds


def test_a_span_that_is_none_is_refused_by_the_name_of_its_header() -> None:
    with pytest.raises(ServiceError, match="X-Vault-Wrap-TTL"):
        wrap_ttl_of("soon")

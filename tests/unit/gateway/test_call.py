"""What both wires make of a request."""

import pytest

from strongroom_gateway.call import names, trace_of

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

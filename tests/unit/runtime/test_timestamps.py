"""Times as clients read them."""

import pytest

from strongroom_runtime.timestamps import rfc3339, timestamp, timestamp_rfc3339


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.5, "1970-01-01T00:00:01.500000Z"),
        (253_402_300_799.0, "9999-12-31T23:59:59.000000Z"),
        (1e12, "9999-12-31T23:59:59.000000Z"),
        (2.0**63, "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_every_time_has_a_form(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text
    known = timestamp(seconds)
    assert known is not None
    assert timestamp_rfc3339(known)[:19] == text[:19]

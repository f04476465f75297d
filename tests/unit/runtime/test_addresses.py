"""Addresses and ranges, in which an IPv4 address is the same however it is written."""

import pytest

from strongroom_runtime.addresses import parse_address, parse_range


@pytest.mark.parametrize(
    ("text", "contains", "without"),
    [
        (
            "10.0.0.0/8",
            ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203"],
            ["11.0.0.1", "::10.1.2.3"],
        ),
        ("10.0.0.5/8", ["10.255.0.1"], ["9.255.255.255"]),
        ("10.0.0.5", ["10.0.0.5"], ["10.0.0.6", "10.0.0.4"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1"]),
        ("::ffff:10.0.0.1", ["10.0.0.1"], ["10.0.0.2"]),
        ("0.0.0.0/0", ["255.255.255.255", "::ffff:1.2.3.4"], ["::1", "2001:db8::1"]),
        ("::/0", ["::1", "2001:db8::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        ("2001:db8::/32", ["2001:db8:ffff::1"], ["2001:db9::1", "10.0.0.1"]),
        ("::1", ["::1"], ["::2", "127.0.0.1"]),
    ],
)
def test_ranges(text: str, contains: list[str], without: list[str]) -> None:
    found = parse_range(text)
    assert all(parse_address(each) in found for each in contains)
    assert not any(parse_address(each) in found for each in without)


@pytest.mark.parametrize(
    "text",
    ["", "office", "10", "10.0.0/8", "10.0.0.0/33", "10.0.0.0/-1", "2001:db8::/129", "010.0.0.1",
     "127.0.0.1:80", "[::1]", "unix:///x", "10.0.0.0/8 "],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="appear"):
        parse_range(text)

"""What may be told of a connection: neither its passwords nor what a database repeats of new ones."""

import pytest

from strongroom_dbcreds.drivers import details, urls
from strongroom_runtime.errors import ServiceError

NEW = "4YyuBCRm7-xhTEm6WoSt"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:1/x", "postgresql://u:xxxxx@h:1/x"),
        ("postgresql://u:s%40c@h/x?password=p2&a=b", "postgresql://u:xxxxx@h/x?password=xxxxx&a=b"),
        ("postgresql://u:a{{password}}@h/x", "postgresql://u:xxxxx@h/x"),
        ("host=h user=u password=secret port=1", "host=h user=u password=xxxxx port=1"),
        (r"host=h password = 'it\'s a' port=1", "host=h password = xxxxx port=1"),
        ("u:p@ss/w@tcp(h:3306)/db?tls=true", "u:xxxxx@tcp(h:3306)/db?tls=true"),
        ("u:secret@/db", "u:xxxxx@/db"),
        ("mongodb://u:secret@h1:1,h2:2/admin", "mongodb://u:xxxxx@h1:1,h2:2/admin"),
        ("u/secret@h:1521/S", "u/xxxxx@h:1521/S"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, shown: str) -> None:
    assert urls.masked(url) == shown
    told = details.read({"connection_url": url}, ["connection_url"]).scrub(f"cannot: {url}")
    assert all(secret not in told for secret in urls.passwords(url))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://{{username}}:{{password}}@h:1/x?sslmode=verify-full",
        "postgresql://h:5432/x?options=a@b",
        "host=h user={{username}} password={{password}}",
        "host=h password='{{password}}'",
        "{{username}}:{{password}}@tcp(h:3306)/?allowCleartextPasswords=true",
        "tcp(h:3306)/db?a=b@c",
        "{{username}}/{{password}}@tcps://h:2484/S",
        "mongodb://h:27017/admin",
        "",
    ],
)
def test_urls_without_passwords_are_shown_as_they_are(url: str) -> None:
    assert urls.masked(url) == url
    assert urls.passwords(url) == []


def known() -> details.Details:
    return details.read({"connection_url": "db://h", "password": "admin"}, ["connection_url"])


def test_of_a_new_password_not_even_a_part_is_told() -> None:
    # MariaDB repeats at most 80 characters of a statement.
    told = known().scrub("right syntax to use near 'BY '4YyuBCRm7-xhTEm...' at line 1", NEW)
    assert told == "right syntax to use near 'BY '***...' at line 1"
    assert known().scrub('invalid value "WoSt" for "YYYY"', NEW) == 'invalid value "***" for "YYYY"'


def test_details_with_a_nul_character_are_refused() -> None:
    # A library that ends its texts there would read less than was written.
    with pytest.raises(ServiceError, match="username"):
        details.read({"connection_url": "db://h", "username": "a\0b"}, ["connection_url"])


def test_a_database_may_say_what_it_likes_at_any_length() -> None:
    told = known().scrub("x" * 990 + NEW + "y" * 3_000_000, NEW)
    assert told == "x" * 990 + "***" + "y" * 7 + "…"
    # Cut in the middle by whoever told it first.
    assert known().scrub("x" * 990 + NEW[:9], NEW) == "x" * 990 + "***"

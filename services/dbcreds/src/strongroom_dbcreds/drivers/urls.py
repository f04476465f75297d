"""Passwords that stand in a connection's URL itself, where a placeholder should."""

import re
from collections.abc import Iterator

_HIDDEN = "xxxxx"  # as Vault shows it
_FORMS = (
    # scheme://user:password@host
    re.compile(r"\A[a-zA-Z][a-zA-Z0-9+.-]*://[^:@/?#]*:(?P<password>[^/?#]*)@"),
    # user:password@tcp(host:port)/database
    re.compile(r"\A[^:/(=]*:(?!//)(?P<password>.*)@(?=(?:tcp|unix)\(|/)"),
    # user/password@host:port/service
    re.compile(r"\A[^:/(=@]+/(?P<password>.*)@"),
    # password=… among parameters, or as libpq writes all of them
    re.compile(
        r"(?:\A|[\s?&])(?:ssl)?password\s*=\s*(?P<password>'(?:\\.|[^'\\])*'|[^\s&']+)",
        re.IGNORECASE,
    ),
)


def passwords(url: str) -> list[str]:
    """Returns the passwords in a URL, as they are written there."""
    return [url[start:end] for start, end in _spans(url)]


def masked(url: str) -> str:
    """Returns a URL that may be shown."""
    for start, end in sorted(_spans(url), reverse=True):
        url = url[:start] + _HIDDEN + url[end:]
    return url


def _spans(url: str) -> Iterator[tuple[int, int]]:
    last = 0
    for form in _FORMS:
        for match in form.finditer(url):
            start, end = match.span("password")
            if start >= last and match["password"].strip("'") not in ("", "{{password}}"):
                yield start, end
                last = end

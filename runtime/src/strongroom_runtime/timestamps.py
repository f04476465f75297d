"""Times as clients read them."""

import datetime


def rfc3339(seconds: float) -> str:
    """Returns wall time (seconds since 1970) as RFC 3339 in UTC, with microseconds."""
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

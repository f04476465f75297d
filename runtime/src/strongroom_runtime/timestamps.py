"""Times as clients read them. What lies beyond the year 9999, for which they have no form, is shown as its end."""

import datetime
import functools
import re

from google.protobuf.timestamp_pb2 import Timestamp

_SECONDS = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EARLIEST = -62_135_596_800  # the beginning of the year 1
_LATEST = 253_402_300_799  # the last second of the year 9999


def parse_time(text: str) -> float:
    """Returns seconds since 1970 from RFC 3339, or from a whole number of such seconds.

    Raises:
        ValueError: neither, or outside of the years 1 to 9999. The text does not repeat the value.
    """
    try:
        if _SECONDS.fullmatch(text):
            seconds = float(text)
        elif _RFC3339.fullmatch(text):
            seconds = datetime.datetime.fromisoformat(text).timestamp()
        else:
            raise ValueError
        if not _EARLIEST <= seconds < _LATEST + 1:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(
            "takes RFC 3339, such as 2030-01-31T12:00:00Z, or seconds since 1970"
        ) from None
    return seconds


@functools.lru_cache(maxsize=16)
def _second(second: int) -> str:
    time = datetime.datetime.fromtimestamp(second, datetime.UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _micros(seconds: float) -> int:
    return round(min(seconds, _LATEST) * 1e6)


def rfc3339(seconds: float) -> str:
    """Returns wall time (seconds since 1970) as RFC 3339 in UTC, with microseconds."""
    micros = _micros(seconds)
    # The part that changes each second is made once: entries are many.
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06}Z"


def timestamp_rfc3339(time: Timestamp) -> str:
    """Returns a protobuf Timestamp as RFC 3339 in UTC, with none, three, six or nine digits behind the point."""
    nanos = time.nanos
    if not nanos:
        return f"{_second(time.seconds)}Z"
    if nanos % 1000:
        return f"{_second(time.seconds)}.{nanos:09}Z"
    if nanos % 1_000_000:
        return f"{_second(time.seconds)}.{nanos // 1000:06}Z"
    return f"{_second(time.seconds)}.{nanos // 1_000_000:03}Z"


def timestamp(seconds: float) -> Timestamp | None:
    """Returns wall time as a protobuf Timestamp, to the microsecond; None for 0, which stands for never."""
    if not seconds:
        return None
    micros = _micros(seconds)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)

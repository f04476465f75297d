"""Times as clients read them."""

import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def rfc3339(seconds: float) -> str:
    """Returns wall time (seconds since 1970) as RFC 3339 in UTC, with microseconds."""
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timestamp(seconds: float) -> Timestamp | None:
    """Returns wall time as a protobuf Timestamp, to the microsecond; None for 0, which stands for never."""
    if not seconds:
        return None
    micros = round(seconds * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)

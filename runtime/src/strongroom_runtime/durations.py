"""Durations as clients write them: seconds, or text such as 1h30m (Vault, "Duration format strings")."""

import re

_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s|us|µs|μs|ns)")
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
# Go's smaller units, which some clients write even for none of them (`10800s0ns`).
_SECONDS |= {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
MAX_SECONDS = ((1 << 63) - 1) // 10**9  # what Vault can count, in nanoseconds: 292 years
_MAX_TEXT = 100  # characters: looking for units takes the square of that


def parse_seconds(value: str | int | float) -> int:
    """Returns whole seconds from a number of seconds, or text with units d, h, m, s, ms, us, ns; the rest is cut off.

    A part of a second alone is one: where 0 stands for no bound, or for the usual one, it must not become that.

    Raises:
        ValueError: neither; negative values among them. The text does not repeat the value.
    """
    seconds = parse_exact_seconds(value)
    return max(1, int(seconds)) if seconds else 0


def parse_exact_seconds(value: str | int | float) -> float:
    """Returns seconds as `parse_seconds`, with their fraction, for bounds that must not be cut off to none.

    Raises:
        ValueError: as `parse_seconds`.
    """
    if isinstance(value, bool):
        raise ValueError("takes seconds or a duration such as 1h30m")
    if isinstance(value, int | float):
        seconds = float(max(-1, min(value, MAX_SECONDS + 1)))  # not all whole numbers fit a float
    else:
        text = value.strip() if len(value) <= _MAX_TEXT else ""
        if re.fullmatch(r"\d+(?:\.\d+)?", text):
            seconds = float(text)
        elif text and not _PART.sub("", text):
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        else:
            raise ValueError("takes seconds or a duration such as 1h30m")
    if seconds < 0:
        raise ValueError("takes a duration that is not negative")
    if seconds > MAX_SECONDS:
        raise ValueError("takes a duration of 292 years at the most")
    return seconds


def format_seconds(seconds: int) -> str:
    """Returns text such as 1h30m0s, as Go's time.Duration writes itself."""
    hours, rest = divmod(seconds, 3_600)
    minutes, remainder = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{remainder}s"
    return f"{minutes}m{remainder}s" if minutes else f"{remainder}s"


def short_seconds(seconds: int) -> str:
    """Returns the same for people to read, without what is zero at its end: 768h, 1h30m."""
    text = format_seconds(seconds)
    if text.endswith("m0s"):
        text = text.removesuffix("0s")
    return text.removesuffix("0m") if text.endswith("h0m") else text

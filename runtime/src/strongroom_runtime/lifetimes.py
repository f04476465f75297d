"""The rules for times to live.

All times are wall time in seconds since 1970, all spans seconds; 0 is never or none.
"""

from dataclasses import dataclass

from strongroom_runtime.durations import short_seconds


@dataclass(frozen=True, slots=True)
class Span:
    """How long a token or a lease lives from now, and what was done otherwise than asked."""

    ttl: int
    warnings: tuple[str, ...] = ()


def span(
    *,
    now: float,
    created: float,
    asked: int,
    usual: int,
    longest: int,
    period: int = 0,
    explicit_max: int = 0,
) -> Span:
    """Returns how long a token or a lease lives from now (Vault documentation, "Tokens", sections on time to live).

    Args:
        now: the time.
        created: when it was made.
        asked: what the caller wants; 0 for the usual.
        usual: what it gets otherwise.
        longest: from its creation; does not bind periodic tokens.
        period: of a periodic token; 0 for others.
        explicit_max: from its creation; binds every token.
    """
    ttl = period or asked or usual
    bounds = [explicit_max] if explicit_max else []
    if not period and longest:
        bounds.append(longest)
    if not bounds:
        return Span(ttl)
    left = max(0, int(created + min(bounds) - now))
    if ttl <= left:
        return Span(ttl)
    return Span(
        left,
        (
            f'TTL of "{short_seconds(ttl)}" exceeded the effective max_ttl of "{short_seconds(left)}";'
            " TTL value is capped accordingly",
        ),
    )

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
        longest: from its creation; of periodic tokens it bounds the period alone.
        period: of a periodic token; 0 for others.
        explicit_max: from its creation; binds every token.
    """
    most = least(longest, explicit_max)
    warnings: list[str] = []
    ttl = period or asked or usual
    if most and period > most:
        warnings.append(_capped("period", period, most))
        ttl = most
    from_creation = explicit_max if period else most
    if not from_creation:
        return Span(ttl, tuple(warnings))
    left = max(0.0, created + from_creation - now)
    if ttl - left >= 1:  # less is what passed since the creation
        warnings.append(_capped("TTL", ttl, int(left)))
    return Span(min(ttl, int(left)), tuple(warnings))


def least(*bounds: int) -> int:
    """Returns the smallest of some bounds in seconds or uses, where 0 means none; 0 where there is none."""
    return min((bound for bound in bounds if bound), default=0)


def _capped(what: str, asked: int, most: int) -> str:
    return (
        f'{what} of "{short_seconds(asked)}" exceeded the effective max_ttl of "{short_seconds(most)}";'
        f" {what} value is capped accordingly"
    )

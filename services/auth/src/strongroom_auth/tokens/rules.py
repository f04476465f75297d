"""The rules for tokens, without I/O: which policies a token may have, and where it may be used from."""

import re
from collections.abc import Iterable, Sequence

from strongroom_auth.tokens.records import TokenRole
from strongroom_runtime.addresses import Range, parse_address, parse_range
from strongroom_runtime.errors import denied, invalid
from strongroom_runtime.globs import matches_any

_NOT_SHOWN = re.compile("[^a-zA-Z0-9-]")


def clean_policies(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names trimmed, in lower case, sorted, each once. Every name passes here before it is looked at."""
    return tuple(sorted({name.strip().lower() for name in names} - {""}))


def display_name(given: str) -> str:
    """Returns the display name of a token that another one makes."""
    return f"token-{_NOT_SHOWN.sub('-', given).strip('-')}".rstrip("-")


def with_default(names: Sequence[str], without: bool) -> tuple[str, ...]:
    """Returns the names with `default`, unless it is not wanted or the token is root."""
    if without or "root" in names:
        return tuple(names)
    return clean_policies([*names, "default"])


def inherited(
    wanted: Sequence[str] | None, parent: Sequence[str], *, free: bool, without: bool
) -> tuple[str, ...]:
    """Returns the policies of a child: what is asked for, all of its parent's where nothing is.

    Args:
        wanted: cleaned names; None where the caller gave no list.
        parent: the parent's.
        free: the caller may give others than the parent's; only then `default` comes where the parent has none.
        without: `default` is not wanted.

    Raises:
        ServiceError: INVALID where a policy is not the parent's to give.
    """
    if wanted is None:
        return tuple(parent)
    if "root" in wanted and "root" not in parent:
        raise invalid("root tokens may not be created without parent token being root")
    check_subset(wanted, parent, free=free)
    return with_default(wanted, without or not (free or "default" in parent))


def check_subset(wanted: Iterable[str], parent: Iterable[str], *, free: bool) -> None:
    """Raises unless a parent has all of some policies, or its holder is free to give others.

    Raises:
        ServiceError: INVALID.
    """
    if not (free or set(wanted) <= set(parent)):
        raise invalid("child policies must be subset of parent")


def check_assignable(names: Iterable[str]) -> None:
    """Raises for the policy that stands for wrapping tokens: with it another token would pass for one.

    Raises:
        ServiceError: INVALID.
    """
    if "response-wrapping" in names:
        raise invalid('cannot assign policy "response-wrapping"')


def check_cidrs(field: str, cidrs: Iterable[str]) -> None:
    """Raises where a list of address ranges has something else in it: it would bind to nothing that exists.

    Raises:
        ServiceError: INVALID; it names the field.
    """
    for cidr in cidrs:
        try:
            parse_range(cidr)
        except ValueError:
            raise invalid(f"{field}: takes addresses or ranges such as 10.0.0.0/8") from None


def address_allowed(cidrs: Sequence[str], address: str) -> bool:
    """Returns whether an address lies in one of the ranges, or there are none."""
    if not cidrs:
        return True
    try:
        client = parse_address(address)
    except ValueError:
        return False
    return any(client in parse_range(cidr) for cidr in cidrs)


def check_strict_ip(cidrs: Sequence[str], *, strict: bool) -> None:
    """Raises where tokens are to be bound both to address ranges and to the client's address.

    Raises:
        ServiceError: INVALID.
    """
    if strict and cidrs:
        raise invalid("'token_strictly_bind_ip' conflicts with 'token_bound_cidrs'; set only one")


def bound_to(address: str, cidrs: tuple[str, ...], *, strict: bool) -> tuple[str, ...]:
    """Returns where a token may be used from: some ranges, or, where that is strict, the client's address alone.

    Raises:
        ServiceError: DENIED where the address is not known, or not within the ranges.
    """
    if not strict:
        return cidrs
    if not address or not address_allowed(cidrs, address):
        raise denied()
    return (address,)


def check_within(field: str, cidrs: Iterable[str], bounds: Sequence[str]) -> None:
    """Raises where an address range does not lie in one of some others, if there are any.

    Raises:
        ServiceError: INVALID; it names the field.
    """
    outer = [parse_range(bound) for bound in bounds]
    for cidr in cidrs:
        inner = parse_range(cidr)
        if outer and not any(_lies_in(inner, each) for each in outer):
            raise invalid(f"{field}: must lie within the address ranges of the role")


def limits_policies(role: TokenRole) -> bool:
    """Returns whether a token role says which policies its tokens may have, or may not."""
    return bool(role.allowed or role.allowed_globs or role.disallowed or role.disallowed_globs)


def role_forbids(name: str, role: TokenRole) -> bool:
    """Returns whether a token role names a policy among those that no token of it has."""
    return name in role.disallowed or matches_any(name, role.disallowed_globs)


def role_allows(name: str, role: TokenRole) -> bool:
    """Returns whether a token role lets a token have a policy."""
    if role_forbids(name, role):
        return False
    anything = not (role.allowed or role.allowed_globs)
    return anything or name in role.allowed or matches_any(name, role.allowed_globs)


def _lies_in(inner: Range, outer: Range) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]

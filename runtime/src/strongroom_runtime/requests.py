"""What the handlers of several services ask of a request."""

from collections.abc import Collection, Iterable

from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import denied, invalid, not_found
from strongroom_runtime.storage import Path, Plain, Store

_LAST = Plain("z" * 100)  # behind all plain names that are asked for here


def mount_of(context: RequestContext) -> MountContext:
    """Returns the mount of a request.

    Raises:
        ServiceError: INVALID for a call that did not come through a mount.
    """
    if context.mount is None:
        raise invalid("the request names no mount")
    return context.mount


def check_right(context: RequestContext, exists: bool) -> None:
    """Raises unless the policy allows what a write turns out to be.

    Raises:
        ServiceError: DENIED.
    """
    if not (context.may_update if exists else context.may_create):
        raise denied()


def check_length(field: str, text: str, most: int) -> None:
    """Raises for a text that is longer than what is kept of its kind.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if len(text) > most:
        raise invalid(f"{field}: may have at most {most} characters")


def check_texts(field: str, texts: Collection[str], most: int, most_characters: int) -> None:
    """Raises for a list of more texts than are kept of its kind, or of longer ones.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if len(texts) > most:
        raise invalid(f"{field}: at most {most} may be given")
    for text in texts:
        check_length(field, text, most_characters)


def check_total(field: str, texts: Iterable[str], most: int) -> None:
    """Raises for texts that are longer together than what is kept of their kind.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if sum(map(len, texts)) > most:
        raise invalid(f"{field}: may have at most {most} characters in all")


def key_values(pairs: Iterable[str]) -> dict[str, str]:
    """Returns what texts such as key=value say; blank ones say nothing.

    Raises:
        ValueError: one of them is no pair.
    """
    found: dict[str, str] = {}
    for pair in filter(str.strip, pairs):
        key, separator, value = pair.partition("=")
        if not (separator and key.strip()):
            raise ValueError("takes pairs such as key=value")
        found[key.strip()] = value.strip()
    return found


async def page_of_entries(
    store: Store, prefix: Path, after: str, limit: int, mark: str = ""
) -> list[str] | None:
    """Returns the part that a request asks for of the names below a prefix, reading no more than that.

    None where not all of them are entries with `Plain` names, which alone stand in order.

    Args:
        store: where they are.
        prefix: all below it are letters and digits behind the mark.
        after: what names come behind; empty for all.
        limit: how many at most; 0 for all.
        mark: what their segments begin with, and their names do not.

    Raises:
        ServiceError: NOT_FOUND where there are no names at all.
    """
    if limit <= 0 or (after and not (after.isascii() and after.isalnum())):
        return None
    if await store.scan(prefix, after=(*prefix, _LAST), limit=1):
        return None
    behind = (*prefix, Plain(mark + after)) if after else None
    entries = await store.scan(prefix, after=behind, limit=limit)
    if not entries and not (after and await store.scan(prefix, limit=1)):
        raise not_found()
    return [entry.path[-1].removeprefix(mark) for entry in entries]


def page(names: list[str], after: str, limit: int) -> list[str]:
    """Returns the part of sorted names that a request asks for.

    Raises:
        ServiceError: NOT_FOUND where there are no names at all.
    """
    if not names:
        raise not_found()
    rest = [name for name in names if name > after] if after else names
    return rest[:limit] if limit > 0 else rest

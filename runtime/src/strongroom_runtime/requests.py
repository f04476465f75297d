"""What the handlers of several services ask of a request."""

from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import denied, invalid, not_found


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


def page(names: list[str], after: str, limit: int) -> list[str]:
    """Returns the part of sorted names that a request asks for.

    Raises:
        ServiceError: NOT_FOUND where there are no names at all.
    """
    if not names:
        raise not_found()
    rest = [name for name in names if name > after] if after else names
    return rest[:limit] if limit > 0 else rest

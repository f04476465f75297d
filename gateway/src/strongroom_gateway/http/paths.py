"""Canonical paths: decoded once, by the HTTP server, and refused where two readers could see two things in them.

What comes out serves policy, routing, storage and audit alike.
"""

import re
from urllib.parse import quote

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.routes import WITH_BODY
from strongroom_runtime.errors import Kind, ServiceError, invalid

PREFIX = "/v1/"
ABSOLUTE = ("sys/", "auth/token/")  # what is no mount of its own
_CHANGES = (*WITH_BODY, options.OPERATION_DELETE)
_ROOT = ("", "root")
# HTTP's server takes no longer ones; a field of a gRPC message may be of any length.
_MOST_CHARACTERS = 65_535
_SLASHES = re.compile("/{2,}")
_IN_PATHS = "/:@!$&'()*+,;="  # may stand as they are (RFC 3986, section 3.3)


def check_namespace(name: str | None) -> None:
    """Raises unless a request means the root namespace: there is no other.

    Raises:
        ServiceError: NOT_FOUND.
    """
    if name and name.strip("/") not in _ROOT:
        raise ServiceError(Kind.NOT_FOUND, "namespace not found")


def tidied(path: str, query: str) -> str | None:
    """Returns where clients that put slashes beside each other should ask; None outside of /v1/.

    Some append a folder that begins with a slash to one that ends with one. Sending them on, as Vault does, leaves
    one spelling of a path for policies and audit entries.

    Args:
        path: decoded once.
        query: as it came.
    """
    if not path.startswith(PREFIX):
        return None
    location = quote(_SLASHES.sub("/", path), safe=_IN_PATHS)
    return f"{location}?{quote(query, safe=_IN_PATHS + '?%')}" if query else location


def canonical(path: str) -> tuple[str, bool]:
    """Returns a request's path below /v1/ without a slash at its end, and whether it had one.

    Args:
        path: decoded once; what still looks encoded is meant as it stands.

    Raises:
        ServiceError: NOT_FOUND outside of /v1/; INVALID for `.`, `..` and empty segments, and for characters that
            cannot be printed.
    """
    if not path.startswith(PREFIX):
        raise ServiceError(Kind.NOT_FOUND)
    if len(path) > _MOST_CHARACTERS:
        raise invalid("path: is too long")
    rest = path[len(PREFIX) :]
    if not rest.isprintable() or "\ufffd" in rest:
        raise invalid("path: cannot contain non-printable characters")
    folder = rest.endswith("/")
    if folder:
        rest = rest[:-1]
    for segment in rest.split("/") if rest else ():
        if not segment:
            raise invalid("path: has an empty segment")
        if segment in (".", ".."):
            raise invalid("relative paths not supported")
    return rest, folder


def check_folder(path: str, operation: int) -> None:
    """Raises where a request would change what a path with a slash at its end names.

    Whether a secret of that name or one in that folder is meant, nobody can tell.

    Args:
        path: canonical; the slash is no more there.
        operation: what is asked for.

    Raises:
        ServiceError: INVALID.
    """
    if operation in _CHANGES and not path.startswith(ABSOLUTE):
        what = "delete" if operation == options.OPERATION_DELETE else "write to"
        raise invalid(f"cannot {what} a path ending in '/'")

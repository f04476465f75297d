"""Cross-origin resource sharing (WHATWG, "Fetch", section 3.2): off until it is turned on.

Answers as Vault does: a page of another origin that is not allowed is refused, not only left to its browser.
"""

import msgspec

from strongroom_runtime.errors import Kind, ServiceError

METHODS = ("DELETE", "GET", "LIST", "OPTIONS", "PATCH", "POST", "PUT", "SCAN")
HEADERS = (
    "Content-Type",
    "Authorization",
    "X-Requested-With",
    "X-Vault-Token",
    "X-Vault-Namespace",
    "X-Vault-Request",
    "X-Vault-MFA",
    "X-Vault-AWS-IAM-Server-ID",
    "X-Vault-Wrap-TTL",
    "X-Vault-Wrap-Format",
    "X-Vault-No-Request-Forwarding",
)
_MAX_AGE = "300"

HeaderList = tuple[tuple[str, str], ...]


class Cors(msgspec.Struct, frozen=True):
    """Who may.

    Args:
        enabled: whether any other origin may.
        origins: which; `*` alone stands for all.
        headers: what pages may send beside HEADERS.
        credentials: whether browsers send what they know of the user.
    """

    enabled: bool = False
    origins: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    credentials: bool = False

    def allows(self, origin: str) -> bool:
        """Whether an origin may."""
        return origin in self.origins or self.origins == ("*",)


def check(cors: Cors, origin: str, method: str, asked_method: str | None) -> HeaderList:
    """Returns the headers that an answer gets.

    Args:
        cors: who may.
        origin: of the page.
        method: of the request.
        asked_method: what a preflight request (OPTIONS) asks for; None where it asks for nothing.

    Raises:
        ServiceError: DENIED for an origin that may not, UNSUPPORTED for a preflight request of another method.
    """
    if not cors.allows(origin):
        raise ServiceError(Kind.DENIED, "origin not allowed")
    headers = [("access-control-allow-origin", origin), ("vary", "Origin")]
    if cors.credentials:
        headers.append(("access-control-allow-credentials", "true"))
    if method != "OPTIONS":
        return tuple(headers)
    if asked_method not in METHODS:
        raise ServiceError(Kind.UNSUPPORTED)
    return (
        *headers,
        ("access-control-allow-methods", ",".join(METHODS)),
        ("access-control-allow-headers", ",".join((*HEADERS, *cors.headers))),
        ("access-control-max-age", _MAX_AGE),
    )

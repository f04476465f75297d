"""A user's session with etcd: a token that is asked for when there is none, and anew when the old one is refused.

Tokens of etcd run out, by default five minutes after their last use, and a member that was restarted knows none.
See etcd's documentation, "Role-based access control".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc

from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.refusal import RefusedError

log = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str], ...]

# What etcd says of a call that it did not begin because of its token.
_STALE = ("invalid auth token", "revision of auth store is old", "user name is empty")
# What it says to who has none: for lack of one it takes the name in the client's certificate for that of a user.
_NOBODY = "permission denied"
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Login:
    """A user of etcd.

    Args:
        user: its name.
        password: reads the password, at each login, so that it can be changed while the process runs.
    """

    user: str
    password: Callable[[], str] = field(repr=False)


class Session:
    """One for each client. Several calls that find the token refused ask for one new one.

    Args:
        login: the user.
        authenticate: exchanges name and password for a token.
        clock: bounds how often a login that was refused is tried again: each costs etcd a slow hash.
    """

    def __init__(
        self,
        login: Login,
        authenticate: Callable[[str, str], Awaitable[str]],
        clock: Clock | None = None,
    ) -> None:
        self._login = login
        self._authenticate = authenticate
        self._clock = clock or SystemClock()
        self._metadata: Metadata | None = None
        self._lock = asyncio.Lock()
        self._failure: tuple[float, ServiceError] | None = None

    async def metadata(self) -> Metadata:
        """Returns what calls carry; nothing while etcd has access control turned off.

        Raises:
            ServiceError: UNAVAILABLE where etcd does not answer, refuses the login, or the password cannot be read.
        """
        if self._metadata is None:
            async with self._lock:
                if self._metadata is None:
                    self._metadata = await self._log_in()
        return self._metadata

    def refused(self, metadata: Metadata, details: str | None) -> bool:
        """Returns whether a call failed for its token, and so did nothing; the next call asks for a new one."""
        reasons = _STALE if metadata else (*_STALE, _NOBODY)
        if not any(text in (details or "") for text in reasons):
            return False
        if self._metadata is metadata:
            self._metadata = None
        return True

    async def _log_in(self) -> Metadata:
        if self._failure is not None:
            since, error = self._failure
            if self._clock.monotonic() < since + _AGAIN_SECONDS:
                raise error.again()
        try:
            token = await self._authenticate(self._login.user, self._password())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                log.warning("etcd has access control turned off; the user is not used")
                return ()
            raise self._failed(_reason(error)) from None
        self._failure = None
        return (("token", token),)

    def _password(self) -> str:
        try:
            return self._login.password()
        except (OSError, UnicodeDecodeError):
            message = "the file with etcd's password cannot be read"
            raise self._failed(RefusedError("login", message)) from None

    def _failed(self, error: ServiceError) -> ServiceError:
        self._failure = (self._clock.monotonic(), error)
        return error


def _reason(error: grpc.aio.AioRpcError) -> ServiceError:
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return RefusedError("login", "etcd refuses the user name or the password")
    return ServiceError(Kind.UNAVAILABLE, f"etcd did not answer ({error.code().name})")

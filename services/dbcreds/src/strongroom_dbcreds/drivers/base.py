"""What a driver does for one connection.

Errors are `ServiceError` with the database's own message, without any password: UNAVAILABLE where the database cannot
be reached or does not answer in time, INVALID where it refuses. Names and passwords can never change the meaning of a
statement: a driver quotes them by its database's rules.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError


class NotReachedError(ServiceError):
    """No connection could be opened: the database was told nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.UNAVAILABLE, message)


@dataclass(frozen=True, slots=True)
class Password:
    """A password to log in with."""

    password: str

    def __repr__(self) -> str:
        return "Password(…)"


@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """The public half of a key to log in with, PEM."""

    public_key: str


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The subject of a certificate to log in with: as RFC 4514 writes it, and the common name, which is all of it."""

    subject: str
    common_name: str


Credential = Password | RsaPublicKey | ClientCertificate


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to make.

    Args:
        username: its name, chosen here.
        credential: what it logs in with.
        expiration: until when, with a time zone.
    """

    username: str
    credential: Credential
    expiration: datetime.datetime


class Driver(Protocol):
    """One connection to a database: users are made and removed with it. Safe to use from many tasks at once.

    `statements` are the role's; empty for the driver's own. Every method raises ServiceError as the module says.
    """

    async def verify(self) -> None:
        """Logs in, and asks something harmless."""
        ...

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        """Returns whether there is a user where `create_user` would make it by these statements."""
        ...

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        """Makes a user; a part of it may be left where this fails."""
        ...

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        """Lets a user live longer."""
        ...

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        """Removes a user and ends its sessions; one that is gone already, or was made in part, is no error."""
        ...

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        """Replaces what a user logs in with."""
        ...

    async def close(self) -> None:
        """Closes what is open."""
        ...


# Returns a driver for a connection, without any I/O; raises INVALID where the details are wrong.
Factory = Callable[[Connection], Driver]


async def reach(driver: Driver) -> None:
    """Asks something harmless first, where a client library does not tell what a call failed at.

    Raises:
        NotReachedError: the database does not answer.
    """
    try:
        await driver.verify()
    except ServiceError as error:
        raise NotReachedError(error.message) from None

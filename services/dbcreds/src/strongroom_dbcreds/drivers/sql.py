"""What the drivers share whose databases commit each statement about users by itself."""

import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from strongroom_dbcreds.domain import statements as templates
from strongroom_dbcreds.domain.statements import Dialect
from strongroom_dbcreds.drivers import details
from strongroom_dbcreds.drivers.base import Credential, NewUser, NotReachedError, Password
from strongroom_dbcreds.drivers.pool import Pool
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import ServiceError, invalid


class SqlDriver(ABC):
    """Implements what of `Driver` is the same for them.

    `known` names the details that a driver takes, `change` the statements that replace a password.
    """

    known: ClassVar[tuple[str, ...]]
    dialect: ClassVar[Dialect]
    change: ClassVar[tuple[str, ...]]

    def __init__(self, connection: Connection) -> None:
        self._details = details.read(connection.details, self.known)
        self._parameters = self._address()
        self._pool: Pool[Any] = Pool(
            self._details.limits, self._connect, self._alive, self._close, self._told
        )

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        """Makes a user by the role's statements."""
        texts = templates.texts(statements)
        if not texts:
            raise invalid("creation_statements: the role has none")
        await self._run(texts, user.username, user.credential, user.expiration)

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        """Lets a user live longer: the database knows no end of users, so that without statements nothing is done."""
        if texts := templates.texts(statements):
            await self._run(texts, username, None, expiration)

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        """Replaces what a user logs in with."""
        await self._run(templates.texts(statements) or self.change, username, credential, None)

    async def close(self) -> None:
        """Closes what is open."""
        await self._pool.close()

    async def _run(
        self,
        texts: Sequence[str],
        username: str,
        credential: Credential | None,
        expiration: datetime.datetime | None,
    ) -> None:
        values = self._values(username, credential)
        if expiration is not None:
            values["expiration"] = expiration.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        hidden = credential.password if isinstance(credential, Password) else ""
        try:
            async with self._pool.lend() as connection:
                await self._execute(connection, texts, values)
        except NotReachedError:
            raise
        except ServiceError as error:
            # Where a backslash escapes, the database repeats the password as it was written.
            text = self._details.scrub(error.message, hidden, hidden.replace("\\", "\\\\"))
            raise ServiceError(error.kind, text) from None

    async def _execute(
        self, connection: Any, texts: Sequence[str], values: Mapping[str, str]
    ) -> None:
        # All are filled in before any is run: a text that cannot be is refused as a whole.
        filled = [templates.split(text, values, self.dialect) for text in texts]
        for statement in [each for text in filled for each in text]:
            await self._query(connection, statement)
        await connection.commit()

    @abstractmethod
    def _address(self) -> dict[str, Any]:
        """Returns how the database is reached; raises INVALID."""

    @abstractmethod
    def _values(self, username: str, credential: Credential | None) -> dict[str, str]:
        """Returns what is put into statements; raises INVALID where there can be no such user."""

    @abstractmethod
    async def _connect(self) -> Any:
        """Opens a connection."""

    @abstractmethod
    async def _alive(self, connection: Any) -> bool:
        """Returns whether a connection still answers."""

    @abstractmethod
    async def _close(self, connection: Any) -> None:
        """Closes a connection; does not raise."""

    @abstractmethod
    def _told(self, error: Exception, connected: bool) -> ServiceError | None:
        """Returns what may be told of an error; None for one that is no database's."""

    @abstractmethod
    async def _query(self, connection: Any, statement: str) -> None:
        """Runs one statement as it is: nothing in it is a parameter."""

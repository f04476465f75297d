"""A database in memory, and the driver to it."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from strongroom_dbcreds.drivers.base import Credential, NewUser, Password
from strongroom_dbcreds.records import Connection
from strongroom_runtime.errors import Kind, ServiceError

Hook = Callable[[str], Awaitable[None]]


@dataclass
class Database:
    """Users by name. `down` refuses, `refuses` says no to statements, `hangs` never answers.

    `hanging` names the user of those connections that never answer; `refused` and `stuck` the users that cannot be
    removed, and those whose removal never ends.
    """

    users: dict[str, NewUser] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)  # of those who log in, where it matters
    ends: dict[str, float] = field(default_factory=dict)  # of users that were renewed
    calls: list[tuple[str, str]] = field(default_factory=list)
    removals: list[tuple[str, ...]] = field(default_factory=list)  # the statements of each
    down: bool = False
    refuses: str = ""
    hangs: bool = False
    hanging: str = ""
    refused: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    waiting: int = 0  # calls that hang
    opened: int = 0
    closed: int = 0
    before: Hook | None = None
    after: Hook | None = None

    def driver(self, connection: Connection) -> "FakeDriver":
        self.opened += 1
        return FakeDriver(self, connection)

    def drops(self, username: str) -> int:
        return sum(call == ("drop", username) for call in self.calls)

    async def enter(self, call: str, username: str, connection: Connection) -> None:
        await asyncio.sleep(0)
        if self.before is not None:
            await self.before(call)
        user = connection.details.get("username", "")
        if self.hangs or (user and user == self.hanging):
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        if self.down:
            raise ServiceError(Kind.UNAVAILABLE, "connection refused")
        if user in self.passwords and connection.details.get("password") != self.passwords[user]:
            raise ServiceError(Kind.UNAVAILABLE, "password authentication failed")
        if self.refuses:
            raise ServiceError(Kind.INVALID, self.refuses)
        self.calls.append((call, username))

    async def leave(self, call: str) -> None:
        if self.after is not None:
            await self.after(call)


class FakeDriver:
    """Implements `Driver`."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    async def verify(self) -> None:
        await self._database.enter("verify", "", self._connection)

    async def has_user(self, statements: Sequence[str], username: str) -> bool:
        await self._database.enter("ask", username, self._connection)
        return username in self._database.users

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        await self._database.enter("create", user.username, self._connection)
        if user.username in self._database.users:
            raise ServiceError(Kind.INVALID, "the user already exists")
        self._database.users[user.username] = user
        await self._database.leave("create")

    async def renew_user(
        self, statements: Sequence[str], username: str, expiration: datetime.datetime
    ) -> None:
        await self._database.enter("renew", username, self._connection)
        self._database.ends[username] = expiration.timestamp()
        await self._database.leave("renew")

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        if username in self._database.stuck:
            await asyncio.Event().wait()
        if username in self._database.refused:
            raise ServiceError(Kind.INVALID, "role owns objects")
        await self._database.enter("drop", username, self._connection)
        self._database.removals.append(tuple(statements))
        self._database.users.pop(username, None)
        await self._database.leave("drop")

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        await self._database.enter("change", username, self._connection)
        if isinstance(credential, Password):
            self._database.passwords[username] = credential.password
        await self._database.leave("change")

    async def close(self) -> None:
        self._database.closed += 1

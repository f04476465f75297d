"""What has a password that is changed: static roles, and connections for their own users."""

from typing import Protocol, TypeVar

import msgspec

from strongroom_dbcreds import credentials
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.credentials import Credentials
from strongroom_dbcreds.domain.rotations import Account, Plan
from strongroom_dbcreds.drivers.base import Password
from strongroom_dbcreds.records import Connection, StaticRole
from strongroom_dbcreds.storage import Named
from strongroom_runtime.errors import Kind, ServiceError, invalid

T = TypeVar("T")


class Subject(Protocol[T]):
    """One kind of record with an account."""

    records: Named[T]

    def unknown(self, name: str) -> ServiceError:
        """Returns what is said where there is none of that name."""
        ...

    def account(self, record: T) -> Account:
        """Returns how it stands."""
        ...

    def plan(self, record: T) -> Plan:
        """Returns when it is changed by itself."""
        ...

    def database(self, name: str, record: T) -> str:
        """Returns the connection whose database is told."""
        ...

    def replaced(self, record: T, account: Account) -> T:
        """Returns a record as it is with another account."""
        ...

    async def secrets(self, mount: str, name: str, record: T) -> dict[str, str]:
        """Returns a new credential.

        Raises:
            ServiceError: INVALID where there can be none.
        """
        ...

    async def tell(self, mount: str, record: T) -> None:
        """Tells the database what is pending; does no harm where it knows already.

        Raises:
            ServiceError: as a driver does.
        """
        ...


class StaticRoles:
    """Static roles."""

    def __init__(
        self, records: Named[StaticRole], connections: Connections, credentials: Credentials
    ) -> None:
        self.records = records
        self._connections = connections
        self._credentials = credentials

    def unknown(self, name: str) -> ServiceError:
        """Returns what is said where there is none of that name."""
        return invalid(f"unknown role: {name}")

    def account(self, record: StaticRole) -> Account:
        """Returns how it stands."""
        return record.account

    def plan(self, record: StaticRole) -> Plan:
        """Returns when it is changed by itself."""
        return record.plan

    def database(self, name: str, record: StaticRole) -> str:
        """Returns the connection whose database is told."""
        return record.database

    def replaced(self, record: StaticRole, account: Account) -> StaticRole:
        """Returns a role as it is with another account."""
        return msgspec.structs.replace(record, account=account)

    async def secrets(self, mount: str, name: str, record: StaticRole) -> dict[str, str]:
        """Returns a new credential."""
        connection = await self.connection(mount, name, record)
        return await self._credentials.secrets(
            connection, record.credential_type, record.credential_config
        )

    async def connection(self, mount: str, name: str, record: StaticRole) -> Connection:
        """Returns the connection of a role.

        Raises:
            ServiceError: INVALID where it does not exist, or does not allow the role.
        """
        found = await self._connections.records.get(mount, record.database)
        if found is None:
            raise invalid("db_name: the role's connection does not exist")
        if not found[0].allows(name):
            raise invalid(f'"{name}" is not an allowed role')
        credentials.check_possible(found[0], record.credential_type)
        if record.self_managed:
            credentials.check_rotatable(found[0])
        return found[0]

    async def tell(self, mount: str, record: StaticRole) -> None:
        """Tells the database what is pending, through the connection, or as the user itself."""
        pending = record.account.pending or {}
        if not record.self_managed:
            async with self._connections.use(mount, record.database) as driver:
                await driver.change_credential(
                    record.statements, record.username, credentials.credential(pending)
                )
            return
        found = await self._connections.records.get(mount, record.database)
        if found is None:
            raise ServiceError(Kind.FAILED_PRECONDITION, "the role's connection does not exist")
        current = record.account.current.get("password", "")
        before = _as_user(found[0], record.username, current)
        await _change_own(
            self._connections, before, record.statements, record.username, pending["password"]
        )


class Roots:
    """Connections, for the users that they log in as."""

    def __init__(self, connections: Connections, credentials: Credentials) -> None:
        self.records = connections.records
        self._connections = connections
        self._credentials = credentials

    def unknown(self, name: str) -> ServiceError:
        """Returns what is said where there is none of that name."""
        return invalid("name: no such connection")

    def account(self, record: Connection) -> Account:
        """Returns how it stands."""
        return record.account

    def plan(self, record: Connection) -> Plan:
        """Returns when it is changed by itself."""
        return record.plan if record.automated else Plan()

    def database(self, name: str, record: Connection) -> str:
        """Returns the connection whose database is told."""
        return name

    def replaced(self, record: Connection, account: Account) -> Connection:
        """Returns a connection as it is with another account; a new password becomes its own."""
        details = record.details
        if account.current:
            details = {**details, "password": account.current["password"]}
            account = msgspec.structs.replace(account, current={})
        return msgspec.structs.replace(record, details=details, account=account)

    async def secrets(self, mount: str, name: str, record: Connection) -> dict[str, str]:
        """Returns a new password."""
        for field in ("username", "password"):
            if not record.details.get(field):
                raise invalid(f"{field}: the connection has none that could be rotated")
        credentials.check_rotatable(record)
        return await self._credentials.secrets(record, "password", {})

    async def tell(self, mount: str, record: Connection) -> None:
        """Tells the database what is pending."""
        pending = (record.account.pending or {})["password"]
        username = str(record.details["username"])
        await _change_own(self._connections, record, record.root_statements, username, pending)


async def _change_own(
    connections: Connections,
    connection: Connection,
    statements: tuple[str, ...],
    username: str,
    password: str,
) -> None:
    """Changes the password of the user that a connection logs in as.

    Where that fails, it may be changed already: whoever began it may have died before it was recorded.
    """
    driver = connections.make(connection)
    try:
        await driver.change_credential(statements, username, Password(password))
        return
    except ServiceError as error:
        told = error
    finally:
        await driver.close()
    driver = connections.make(_as_user(connection, username, password))
    try:
        await driver.verify()
    except ServiceError:
        raise told from None
    finally:
        await driver.close()


def _as_user(connection: Connection, username: str, password: str) -> Connection:
    details = {**connection.details, "username": username, "password": password}
    return msgspec.structs.replace(connection, details=details)

"""Calls the dbcreds service through its handler table, as the gateway does."""

from typing import Any

import msgspec
import pytest
from google.protobuf.message import Message
from tests.fakes.database import Database
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import gate_pb2, login_pb2, token_lease_pb2
from strongroom.dbcreds.v1 import (
    connection_pb2,
    lease_pb2,
    passwords_pb2,
    quota_pb2,
    role_pb2,
    static_pb2,
)
from strongroom_dbcreds.config import Config
from strongroom_dbcreds.service import build
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Alone, Host, Membership
from strongroom_runtime.storage import Path, Plain

MODULES = (connection_pb2, lease_pb2, passwords_pb2, quota_pb2, role_pb2, static_pb2)
MOUNT = MountContext("database/", "database", "mount-1", "database_1")
TOKEN = TokenContext("aa11", "accessor", "token")
CONTEXT = RequestContext("r", mount=MOUNT, token=TOKEN)
OPERATOR = msgspec.structs.replace(CONTEXT, of_others=True)
STRANGER = msgspec.structs.replace(CONTEXT, token=TokenContext("bb22", "b", "other"))


class Auth:
    """Stands in for the auth service: knows which tokens stand."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.used_up: set[str] = set()
        self.away = False
        self.asked = 0

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        if isinstance(request, token_lease_pb2.ListTokenLeasesRequest):
            return token_lease_pb2.ListTokenLeasesResponse()
        assert isinstance(request, gate_pb2.CheckTokenRequest)
        self.asked += 1
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "away")
        return gate_pb2.CheckTokenResponse(
            alive=request.id not in self.dead | self.used_up, last_use=request.id in self.used_up
        )


class Dbcreds:
    """One process of the service; `twin` makes another over the same store and database."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        clock: ManualClock | None = None,
        database: Database | None = None,
        auth: Auth | None = None,
        config: Config | None = None,
        membership: Membership | None = None,
    ) -> None:
        self.store = store or MemoryStore()
        self.clock = clock or ManualClock()
        self.database = database or Database()
        self.auth = auth or Auth()
        self.config = config or Config(clock_seconds=0.02)
        self.membership = membership or Alone()
        host = Host(self.store, self.clock, {"auth": self.auth}, self.membership)
        self.service = build(host, self.config, {"fake": self.database.driver})
        self._caller = LocalCaller(self.service.handlers)

    async def prepare(self) -> "Dbcreds":
        await self.service.clock.find()
        return self

    async def furnish(self, **role: Any) -> "Dbcreds":
        """Makes a connection and a role."""
        await self.prepare()
        await self("WriteConnection", name="db", plugin_name="fake", allowed_roles=texts("*"))
        await self.role(**role)
        return self

    async def two_databases(self) -> None:
        """Makes the connection `db` as the user `slow`, and `other` as `quick`."""
        for name, user in (("db", "slow"), ("other", "quick")):
            details = connection_pb2.ConnectionDetails(username=user)
            fields: dict[str, Any] = {
                "plugin_name": "fake",
                "allowed_roles": texts("*"),
                "details": details,
            }
            await self("WriteConnection", name=name, **fields)

    async def role(self, name: str = "app", **fields: Any) -> None:
        await self("WriteRole", name=name, **{"db_name": "db", "default_ttl": 3600, **fields})

    def twin(self, clock: ManualClock | None = None, store: Any = None) -> "Dbcreds":
        return Dbcreds(
            store or self.store, clock or self.clock, self.database, self.auth, self.config
        )

    async def __call__(self, method: str, context: RequestContext = CONTEXT, **fields: Any) -> Any:
        module, service = next(
            (m, s)
            for m in MODULES
            for s in m.DESCRIPTOR.services_by_name.values()
            if method in s.methods_by_name
        )
        request = getattr(module, f"{method}Request")(**fields)
        return await self._caller.call(f"/{service.full_name}/{method}", request, context)

    async def creds(self, role: str = "app", context: RequestContext = CONTEXT) -> Any:
        return await self("CreateCredentials", context, name=role)

    async def work(self) -> None:
        """Lets the worker do all that is due."""
        before: set[Path] = set()
        for _ in range(50):
            await self.service.expiry.step()
            await self.service.expiry.settle()
            left = await self._due()
            if not left or left == before:
                return  # nothing, or only what somebody else is at
            before = left
        raise AssertionError("the worker does not come to an end")

    async def _due(self) -> set[Path]:
        """Returns the entries of all queues whose time has come."""
        entries = await self.store.scan((Plain("queue"),))
        return {e.path for e in entries if int(e.path[-2]) / 1000 <= self.service.clock.now()}

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.work()

    async def count(self) -> int:
        return int((await self("CountLeases", OPERATOR)).lease_count)

    async def stored(self, kind: str) -> int:
        return len([e for e in await self.store.scan(()) if str(e.path[0]) == kind])

    async def nothing_left(self) -> bool:
        """Whether neither users nor leases nor index entries are left."""
        kinds = ("lease", "queue", "prefix", "token", "mount", "failing", "name")
        return not self.database.users and not any([await self.stored(kind) for kind in kinds])


def texts(*values: str) -> login_pb2.TextList:
    return login_pb2.TextList(values=values)


async def refused(call: Any, kind: Kind, message: str = "") -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.kind is kind, caught.value.message
    assert message in caught.value.message

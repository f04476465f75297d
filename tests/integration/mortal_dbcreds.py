"""A dbcreds service in a process of its own that kills itself at a step.

It is told how to reach etcd, what to call, and after how many steps to die. There is one before and one after each
transaction, each creation and removal of a user, and each change of a password. To load the service takes longer than
to run it: the processes are copies of one that has.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from strongroom.auth.v1 import gate_pb2
from strongroom.dbcreds.v1 import role_pb2, static_pb2
from strongroom_dbcreds.config import Config
from strongroom_dbcreds.drivers.base import Credential, NewUser
from strongroom_dbcreds.drivers.postgresql import PostgresDriver
from strongroom_dbcreds.service import DbcredsService, build
from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Host
from strongroom_runtime.storage import Transaction

CONTEXT = RequestContext(
    "r",
    mount=MountContext("database/", "database", "mount-1", "database_1"),
    token=TokenContext("aa11", "accessor", "root"),
    of_others=True,
)
# Short where a test waits until it is over; not so short that what a busy machine does late is given up.
CONFIG = Config(
    clock_seconds=0.1,
    creation_seconds=10.0,
    aftercheck_seconds=1.0,
    claim_seconds=0.5,
    revocation_seconds=1,
    expiry_seconds=0.1,
    rotation_seconds=0.1,
    change_seconds=3.0,
    change_claim_seconds=0.5,
)
NEVER = 1_000_000
Die = Callable[[dict[str, Any]], bool]
_SECONDS = 60
EXPIRY = "expiry"  # instead of a call: ends what is due
CALLS: dict[str, tuple[str, Message]] = {
    "creds": ("RoleService/CreateCredentials", role_pb2.CreateCredentialsRequest(name="app")),
    "role": ("StaticRoleService/RotateRole", static_pb2.RotateRoleRequest(name="static")),
    "root": ("StaticRoleService/RotateRoot", static_pb2.RotateRootRequest(name="pg")),
}


class Death:
    """Ends the process, as kill -9 does, once so many steps were made."""

    def __init__(self, steps: int) -> None:
        self.left = NEVER
        self._steps = steps

    def arm(self) -> None:
        self.left = self._steps

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


class MortalStore(EtcdStore):
    death: Death

    async def commit(self, transaction: Transaction) -> int:
        self.death.step()
        revision = await super().commit(transaction)
        self.death.step()
        return revision


class MortalDriver(PostgresDriver):
    death: Death

    async def create_user(self, statements: Sequence[str], user: NewUser) -> None:
        self.death.step()
        await super().create_user(statements, user)
        self.death.step()

    async def drop_user(self, statements: Sequence[str], username: str) -> None:
        self.death.step()
        await super().drop_user(statements, username)
        self.death.step()

    async def change_credential(
        self, statements: Sequence[str], username: str, credential: Credential
    ) -> None:
        self.death.step()
        await super().change_credential(statements, username, credential)
        self.death.step()


class AliveTokens:
    """Stands in for the auth service."""

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        return gate_pb2.CheckTokenResponse(alive=True)


def service(client: EtcdClient, keys: tuple[str, str], death: Death) -> DbcredsService:
    """Returns the service over a real etcd and a real database."""
    ring = KeyRing({1: bytes.fromhex(keys[0])}, bytes.fromhex(keys[1]))
    store = MortalStore(client, BarrierCodec("dbcreds", KeyHolder(ring)))
    store.death = MortalDriver.death = death
    host = Host(store, peers={"auth": AliveTokens()})
    return build(host, CONFIG, {"postgresql-database-plugin": MortalDriver})


async def run(told: dict[str, Any]) -> None:
    death = Death(told["steps"])
    client = EtcdClient(EtcdConfig((told["etcd"],)))
    dbcreds = service(client, tuple(told["keys"]), death)
    await dbcreds.clock.find()
    death.arm()
    if told.get("call") == EXPIRY:
        await dbcreds.expiry.step()
        await dbcreds.expiry.settle()
    else:
        method, request = CALLS[told.get("call", "creds")]
        caller = LocalCaller(dbcreds.handlers)
        await caller.call(f"/strongroom.dbcreds.v1.{method}", request, CONTEXT)
    death.left = NEVER
    print("answered", flush=True)
    await client.close()


@contextlib.contextmanager
def processes() -> Iterator[Die]:
    """Gives what runs a process that kills itself, and returns whether it had answered before."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.mortal_dbcreds"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as origin:  # fmt: skip
        told, said = origin.stdin, origin.stdout
        assert told is not None and said is not None

        def die(what: dict[str, Any]) -> bool:
            told.write(json.dumps(what) + "\n")
            told.flush()
            line = said.readline()
            answered = line == "answered\n"
            ended = said.readline() if answered else line
            assert ended == f"ended {0 if answered else -signal.SIGKILL}\n", ended
            return answered

        yield die


def copy_for_each() -> None:
    """Runs a copy of this process for each line that it is told, and says how that ended."""
    for line in sys.stdin:
        copy = os.fork()
        if copy == 0:
            asyncio.run(asyncio.wait_for(run(json.loads(line)), _SECONDS))
            os._exit(0)
        _, status = os.waitpid(copy, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    copy_for_each()

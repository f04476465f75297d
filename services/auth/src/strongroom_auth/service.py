"""Builds the auth service."""

import asyncio
import uuid
from collections.abc import Iterable
from typing import NoReturn, Protocol

from strongroom.auth.v1 import (
    approle_pb2,
    gate_pb2,
    policy_pb2,
    token_lease_pb2,
    token_pb2,
    userpass_pb2,
)
from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import cubbyhole_pb2
from strongroom_auth.approle.logins import METHOD as APPROLE
from strongroom_auth.approle.logins import Logins
from strongroom_auth.approle.roles import Roles
from strongroom_auth.approle.rpc import AppRoleHandlers
from strongroom_auth.config import Config
from strongroom_auth.lockout import Lockouts
from strongroom_auth.policies.rpc import PolicyHandlers
from strongroom_auth.policies.storage import PolicyStore
from strongroom_auth.tokens.cleanup import Cleanup, Listener
from strongroom_auth.tokens.gate_rpc import TokenGateHandlers
from strongroom_auth.tokens.lease_rpc import TokenLeaseHandlers
from strongroom_auth.tokens.leftovers import Cubbyholes
from strongroom_auth.tokens.roles import TokenRoles
from strongroom_auth.tokens.rpc import TokenHandlers
from strongroom_auth.tokens.tokens import Tokens
from strongroom_auth.userpass.passwords import Passwords
from strongroom_auth.userpass.rpc import METHOD as USERPASS
from strongroom_auth.userpass.rpc import UserpassHandlers
from strongroom_auth.userpass.users import Users
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.handlers import Caller, HandlerTable
from strongroom_runtime.mount_marks import GoneMarks
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.service import BackgroundTasks, Host
from strongroom_runtime.shared_clock import SharedClock

_DROP_TOKEN_DATA = "/strongroom.kv.v1.KvLifecycleService/DropTokenData"  # noqa: S105 (a method)
_DROP_TOKEN_LEASES = "/strongroom.dbcreds.v1.LeaseLifecycleService/DropTokenLeases"  # noqa: S105


class Sweeps(Protocol):
    """Finds records that are of no more use after a time."""

    async def sweep(self, now: float) -> None:
        """Removes those. May be repeated, by any replica."""


class AuthService:
    """The auth service: tokens, policies, login methods."""

    def __init__(
        self,
        handlers: HandlerTable,
        clock: SharedClock,
        tokens: Tokens,
        policies: PolicyStore,
        cleanup: Cleanup,
        policy_seconds: float,
        swept: Iterable[Sweeps],
        marks: GoneMarks,
        lockout_seconds: float,
    ) -> None:
        self.handlers = handlers
        self.clock = clock
        self._tokens = tokens
        self._policies = policies
        self._policy_seconds = policy_seconds
        self._swept = tuple(swept)
        self.marks = marks
        self._lockout_seconds = lockout_seconds
        self._cleanup = cleanup
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Finds out the time, makes what the first request needs, and begins to remove what has ended.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        await self._tokens.records.prepare()
        self._tasks.start(self.clock.run(), "token-clock")
        try:
            await self.clock.ready()
        except ServiceError:
            await self.stop()
            raise
        self._tasks.start(self._cleanup.run(), "token-cleanup")
        self._tasks.start(self._remove_policies(), "policy-cleanup")
        self._tasks.start(self._sweep(), "login-cleanup")
        self._tasks.start(self.marks.run(), "auth-gone-marks")

    async def stop(self) -> None:
        """Ends background work."""
        await self._tasks.stop()
        self._tokens.records.forget()
        self.clock.forget()

    async def _remove_policies(self) -> NoReturn:
        """Removes policies that have ended, now and every so often, until cancelled."""
        ending, work = self._policies.ending, Repeated("the removal of policies that have ended")
        while True:
            with work.turn():
                if not ending.complete:
                    await ending.complete_index()
                await ending.remove()
            await asyncio.sleep(self._policy_seconds)

    async def _sweep(self) -> NoReturn:
        """Removes what is of no more use, such as failed logins and secret ids, every so often, until cancelled."""
        work = Repeated("the removal of failed logins, secret ids and cubbyholes")
        while True:
            await asyncio.sleep(self._lockout_seconds)
            for each in self._swept:
                with work.turn(each):
                    await each.sweep(self.clock.now())


def build(host: Host, config: Config | None = None) -> AuthService:
    """Returns the service over a store. Of `host.peers`, `kv` and `dbcreds` are told of tokens that ended."""
    config = config or Config()
    clock = SharedClock(host.store, host.clock, config.clock_seconds)
    tokens = Tokens(host.store, clock, config)
    policies = PolicyStore(host.store, config.attempts, clock)
    users, roles = Users(host.store, config), Roles(host.store, config.attempts)
    token_roles = TokenRoles(host.store, config.attempts)
    lockouts = {name: Lockouts(host.store, config, name) for name in (USERPASS, APPROLE)}
    logins = Logins(roles, tokens, lockouts[APPROLE], config.attempts)

    async def drop_data(mount: str) -> None:
        await users.drop_mount(mount)
        await roles.drop_mount(mount)

    async def role_of(mount: str, role_id: str) -> str:
        found = await roles.by_id(mount, role_id)
        return found[0] if found is not None else ""

    async def policies_of(token: str, accessor: str) -> tuple[str, ...] | None:
        found = await tokens.named(text=token, accessor=accessor)
        return found.policies if found is not None else None

    handlers = HandlerTable(clock.ready)
    passwords = Passwords(config.bcrypt_rounds)
    for module, name, implementation in (
        (
            gate_pb2,
            "TokenGateService",
            TokenGateHandlers(host.store, tokens, policies, drop_data, role_of, lockouts),
        ),
        (token_lease_pb2, "TokenLeaseService", TokenLeaseHandlers(tokens)),
        (token_pb2, "TokenService", TokenHandlers(tokens, token_roles, policies)),
        (policy_pb2, "PolicyService", PolicyHandlers(policies, policies_of, clock)),
        (
            userpass_pb2,
            "UserpassService",
            UserpassHandlers(users, passwords, tokens, lockouts[USERPASS]),
        ),
        (approle_pb2, "AppRoleService", AppRoleHandlers(roles, logins, tokens)),
    ):
        handlers.add(module.DESCRIPTOR.services_by_name[name], implementation)
    listeners = _listeners(host)
    swept: list[Sweeps] = [*lockouts.values(), roles]
    if "kv" in listeners:
        swept.append(Cubbyholes(tokens.records, host.peers["kv"], listeners["kv"]))
    return AuthService(
        handlers,
        clock,
        tokens,
        policies,
        Cleanup(tokens, list(listeners.values()), config.tidy_seconds, host.clock),
        config.policy_tidy_seconds,
        swept,
        GoneMarks(host.store, host.clock, drop_data),
        config.lockout_tidy_seconds,
    )


def _listeners(host: Host) -> dict[str, Listener]:
    """Returns what tells the other services of tokens that ended, by their names."""
    return {
        name: listener(host.peers[name])
        for name, listener in _LISTENERS.items()
        if name in host.peers
    }


def _kv_listener(kv: Caller) -> Listener:
    async def drop(token_id: str) -> None:
        request = cubbyhole_pb2.DropTokenDataRequest(token_id=token_id)
        await kv.call(_DROP_TOKEN_DATA, request, RequestContext(str(uuid.uuid4()), caller="auth"))

    return drop


def _dbcreds_listener(dbcreds: Caller) -> Listener:
    async def drop(token_id: str) -> None:
        request = lease_pb2.DropTokenLeasesRequest(token_id=token_id)
        context = RequestContext(str(uuid.uuid4()), caller="auth")
        await dbcreds.call(_DROP_TOKEN_LEASES, request, context)

    return drop


# Leases first: users of databases matter more than documents that nobody can read any more.
_LISTENERS = {"dbcreds": _dbcreds_listener, "kv": _kv_listener}

"""Bounds on the number of leases.

quota/<name>        a quota
gate/<name>         written by each transaction that adds a lease under a quota

What counts is counted, not remembered: the leases below a prefix, by etcd itself. Two transactions that add a lease
under one quota cannot both rest on the same count, since each expects the gate as it was before the count and changes
it. See `docs/decisions/0020-lease-quotas.md`.
"""

import contextlib
from collections.abc import AsyncIterator

import msgspec

from strongroom_dbcreds.leases.storage import Leases
from strongroom_dbcreds.records import Quota
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.locks import KeyedLocks
from strongroom_runtime.storage import Path, Plain, Store, Transaction

_QUOTA, _GATE = Plain("quota"), Plain("gate")

_decode = msgspec.msgpack.Decoder(Quota).decode


class Quotas:
    """All quotas."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store = store
        self._leases = leases
        self._locks = KeyedLocks()

    async def names(self) -> list[str]:
        """Returns the names of all quotas, sorted."""
        return [name for name, _ in await self._store.children((_QUOTA,))]

    async def get(self, name: str) -> Quota | None:
        """Returns a quota."""
        entry = await self._store.get((_QUOTA, name))
        return _decode(entry.value) if entry is not None else None

    async def write(self, name: str, quota: Quota) -> None:
        """Writes a quota.

        Raises:
            ServiceError: INVALID where it contradicts itself, or another one binds the same.
        """
        if quota.most < 1:
            raise invalid("max_leases: takes a number from 1")
        if quota.role and not quota.path:
            raise invalid("role: needs the path of a mount")
        for other in await self.names():
            known = await self.get(other) if other != name else None
            if known is not None and (known.path, known.role) == (quota.path, quota.role):
                raise invalid("path: another quota binds the same path and role")
        await self._store.commit(Transaction(puts={(_QUOTA, name): msgspec.msgpack.encode(quota)}))

    async def delete(self, name: str) -> None:
        """Removes a quota; not an error where there is none."""
        await self._store.commit(Transaction(deletes=[(_QUOTA, name), (_GATE, name)]))

    async def counted(self, quota: Quota) -> int:
        """Returns how many leases a quota counts."""
        return await self._leases.count(_prefix(quota))

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Keeps those of this process who add leases under one quota from failing each other."""
        if not name:
            yield
            return
        async with self._locks.hold(name):
            yield

    async def binding(self, mount_path: str, role: str) -> str:
        """Returns the name of the quota that binds a role of a mount; empty for none."""
        found: dict[tuple[str, str], str] = {}
        for name in await self.names():
            quota = await self.get(name)
            if quota is not None:
                found[(quota.path, quota.role)] = name
        for key in ((mount_path, role), (mount_path, ""), ("", "")):
            if key in found:
                return found[key]
        return ""

    async def admit(self, name: str, path: str) -> Transaction:
        """Returns what the transaction must hold that adds a lease under a quota.

        Raises:
            ServiceError: EXHAUSTED where there are as many leases as there may be.
        """
        quota = await self.get(name) if name else None
        if quota is None:
            return Transaction()
        gate: Path = (_GATE, name)
        # Read before the count: whoever adds one after it changes the gate, and fails this transaction.
        entry = await self._store.get(gate, linearizable=True)
        if await self.counted(quota) >= quota.most:
            raise ServiceError(Kind.EXHAUSTED, f'request path "{path}": lease count quota exceeded')
        return Transaction(expect={gate: entry.revision if entry else 0}, puts={gate: b""})


def _prefix(quota: Quota) -> str:
    return f"{quota.path}creds/{quota.role}" if quota.role else quota.path

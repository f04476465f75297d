"""The mount table: where it is kept, and which mount a path lies in."""

import contextlib
import json
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from strongroom_runtime.context import MountContext
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.record import Record
from strongroom_runtime.storage import ConflictError, Entry, Path, Plain, Store, Transaction

SYSTEM_TTL = 2_764_800  # 768 hours
_TABLE: Path = (Plain("mounts"),)
_ATTEMPTS = 20

ACTIVE, REMOVING = "active", "removing"
# What belongs to the platform, beside the folder of logins: nothing can be mounted below.
RESERVED = ("audit/", "cubbyhole/", "identity/", "sys/")


class Mount(msgspec.Struct, frozen=True):
    """One mount. Spans in seconds, 0 for the system's; `path` ends with a slash, and begins with auth/ for logins.

    `moves` says how often it was moved, `settling` that what it gave before has not yet ended for certain.
    `tuning` holds what the gateway and services read of it beside, by the names of the contract.
    """

    path: str
    type: str
    uuid: str
    accessor: str
    description: str = ""
    options: dict[str, str] = {}
    default_ttl: int = 0
    max_ttl: int = 0
    local: bool = False
    seal_wrap: bool = False
    external_entropy_access: bool = False
    state: str = ACTIVE
    moves: int = 0
    settling: bool = False
    created: float = 0.0
    tuning: dict[str, object] = {}

    @property
    def auth(self) -> bool:
        """Whether it is a login method."""
        return self.path.startswith("auth/")

    @property
    def builtin(self) -> bool:
        """Whether it is always there."""
        return self.type in ("system", "cubbyhole", "token")

    @property
    def kind(self) -> tuple[str, str]:
        """What routes are found by: type and version."""
        version = self.options.get("version", "1") if self.type == "kv" else ""
        return self.type, version

    @property
    def effective_default(self) -> int:
        """The usual time to live."""
        return min(self.default_ttl or SYSTEM_TTL, self.effective_max)

    @property
    def effective_max(self) -> int:
        """The longest time to live."""
        return self.max_ttl or SYSTEM_TTL

    def context(self) -> MountContext:
        """Returns what travels with requests to it."""
        return MountContext(
            path=self.path,
            type=self.type,
            uuid=self.uuid,
            accessor=self.accessor,
            options=self.options,
            default_lease_ttl=self.effective_default,
            max_lease_ttl=self.effective_max,
            config=json.dumps(self.tuning).encode() if self.tuning else b"",
        )


def new_mount(path: str, kind: str, **fields: object) -> Mount:
    """Returns a mount with an identity of its own."""
    accessor = f"{'auth_' if path.startswith('auth/') else ''}{kind}_{secrets.token_hex(4)}"
    mount = Mount(
        path=path, type=kind, uuid=str(uuid.uuid4()), accessor=accessor, created=time.time()
    )
    return msgspec.structs.replace(mount, **fields)


def builtin_mounts() -> dict[str, Mount]:
    """Returns the mounts that are always there. Their identities are fixed: every gateway names the same."""
    texts = {
        "sys/": ("system", "system endpoints used for control, policy and debugging"),
        "cubbyhole/": ("cubbyhole", "per-token private secret storage"),
        "auth/token/": ("token", "token based credentials"),
    }
    return {
        path: Mount(
            path=path,
            type=kind,
            uuid=f"builtin-{kind}",
            accessor=f"{'auth_' if path.startswith('auth/') else ''}{kind}_builtin",
            description=description,
        )
        for path, (kind, description) in texts.items()
    }


Mounts = dict[str, Mount]


@dataclass(slots=True)
class Snapshot:
    """The table as it is at one time, ready to route by."""

    mounts: Mounts
    contexts: dict[str, MountContext]

    def find(self, path: str) -> tuple[Mount, MountContext] | None:
        """Returns the mount that a path lies in. Mounts do not overlap, so there is one at the most."""
        end = path.find("/")
        while end >= 0:
            mount = self.mounts.get(path[: end + 1])
            if mount is not None:
                return mount, self.contexts[mount.path]
            end = path.find("/", end + 1)
        return None


def _snapshot(entry: Entry | None) -> Snapshot:
    mounts = builtin_mounts()
    if entry is not None:
        mounts |= msgspec.msgpack.decode(entry.value, type=Mounts)
    return Snapshot(mounts, {path: mount.context() for path, mount in mounts.items()})


class MountTable:
    """All mounts, in one record: they are few, and every request needs them.

    The record is read from memory, by the store's promise: a request that starts after a change has returned sees it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Returns the table as it is; raises as `Store.get`.
        self.current = Record(store, _TABLE, _snapshot).current

    async def change(self, change: Callable[[Mounts], Mounts | None]) -> None:
        """Replaces the table by what a function makes of it (None: nothing); asked again after a lost race.

        Raises:
            ServiceError: what the function raises; CONFLICT.
        """
        for _ in range(_ATTEMPTS):
            entry = await self._store.get(_TABLE)
            stored = msgspec.msgpack.decode(entry.value, type=Mounts) if entry else {}
            after = change(builtin_mounts() | stored)
            if after is None:
                return
            # Built-in ones are stored once they were tuned: by then they differ.
            kept = {p: m for p, m in after.items() if m != builtin_mounts().get(p)}
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(
                        expect={_TABLE: entry.revision if entry else 0},
                        puts={_TABLE: msgspec.msgpack.encode(kept)},
                    )
                )
                return
        raise ServiceError(Kind.CONFLICT, "others change the mounts; try again")


def check_free(mounts: Mounts, path: str) -> None:
    """Raises where a path lies in a mount or a mount lies in it.

    Raises:
        ServiceError: INVALID.
    """
    for known in mounts:
        if known.startswith(path) or path.startswith(known):
            raise invalid(f"path is already in use at {known}")
    first = path.partition("/")[0] + "/"
    if first in RESERVED:
        raise invalid(f"path: nothing can be mounted below {first}")

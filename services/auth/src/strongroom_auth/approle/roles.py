"""Where roles and secret ids are kept.

approle/<mount>/r/<name>                the role
approle/<mount>/i/<role id>             its name
approle/<mount>/s/<role>/<hash>         a secret id, under the HMAC of its text
approle/<mount>/a/<role>/<accessor>     its hash
approle/<mount>/f/<role id>             failed logins (`lockout`)
"""

import contextlib
import hmac
import os
import uuid
from collections.abc import Awaitable, Callable

import msgspec

from strongroom_auth.settings import Settings
from strongroom_auth.tokens.tokens import conflict
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.mount_marks import check_there, gone_path
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction, going_past

_APPROLE = Plain("approle")
_PAGE = 50


class Role(msgspec.Struct, frozen=True):
    """A role; spans in seconds, 0 for ever or without limit.

    `salt` keys the HMACs of its secret ids.
    """

    role_id: str
    salt: bytes
    bind_secret_id: bool = True
    secret_id_cidrs: tuple[str, ...] = ()
    secret_id_uses: int = 0
    secret_id_ttl: int = 0
    local_secret_ids: bool = False
    settings: Settings = Settings()

    def __repr__(self) -> str:
        return f"Role({self.role_id})"


class SecretId(msgspec.Struct, frozen=True):
    """A secret id, without its text. Times are wall time in seconds since 1970, 0 for never."""

    accessor: str
    created: float
    updated: float
    expires: float = 0.0
    ttl: int = 0
    uses: int = 0
    cidrs: tuple[str, ...] = ()
    token_cidrs: tuple[str, ...] = ()
    metadata: dict[str, str] = {}

    def alive(self, now: float) -> bool:
        """Whether it may be used."""
        return not self.expires or now < self.expires


def hash_of(role: Role, secret_id: str) -> str:
    """Returns what a secret id is kept under."""
    return hmac.digest(role.salt, secret_id.encode(), "sha256").hex()


class Roles:
    """The roles and secret ids of all mounts."""

    def __init__(self, store: Store, attempts: int) -> None:
        self.store = store
        self._attempts = attempts

    async def get(self, mount: str, name: str) -> Role | None:
        """Returns a role."""
        found = await self._read(mount, name)
        return found[0] if found is not None else None

    async def by_id(self, mount: str, role_id: str) -> tuple[str, Role, int] | None:
        """Returns the name of a role, the role and the revision of its record, by its id."""
        if not role_id:
            return None
        entry = await self.store.get(_id(mount, role_id))
        if entry is None:
            return None
        name = entry.value.decode()
        found = await self._read(mount, name)
        return (name, *found) if found is not None and found[0].role_id == role_id else None

    async def names(self, mount: str) -> list[str]:
        """Returns the names of all roles, sorted."""
        return [n for n, _ in await self.store.children((_APPROLE, Plain(mount), Plain("r")))]

    async def change(
        self, mount: str, name: str, change: Callable[[Role | None], Awaitable[Role]]
    ) -> None:
        """Replaces a role by what a function makes of it, with the index of its id, in one transaction.

        Raises:
            ServiceError: INVALID where another role has the id; NOT_FOUND where the mount was disabled; CONFLICT.
        """
        for _ in range(self._attempts):
            await check_there(self.store, mount)
            before, revision = await self._read(mount, name) or (None, 0)
            after = await change(before)
            transaction = Transaction(
                expect={role_path(mount, name): revision, gone_path(mount): 0},
                puts={role_path(mount, name): msgspec.msgpack.encode(after)},
            )
            if before is None or before.role_id != after.role_id:
                if await self.store.get(_id(mount, after.role_id)) is not None:
                    raise invalid("role_id: is in use by another role")
                transaction.expect[_id(mount, after.role_id)] = 0
                transaction.puts[_id(mount, after.role_id)] = name.encode()
                if before is not None:
                    transaction.deletes.append(_id(mount, before.role_id))
            with contextlib.suppress(ConflictError):
                await self.store.commit(transaction)
                return
        raise conflict()

    async def delete(self, mount: str, name: str) -> None:
        """Removes a role, and what nobody can use without it."""
        while (found := await self._read(mount, name)) is not None:
            path, (role, revision) = role_path(mount, name), found
            with contextlib.suppress(ConflictError):  # it may have another id by now
                await self.store.commit(
                    Transaction(expect={path: revision}, deletes=[path, _id(mount, role.role_id)])
                )
                break
        # Secret ids do nothing without the role's salt; what a crash in between leaves, a later role of the same
        # name, which has another salt, cannot match, and `sweep` removes.
        for kind in ("s", "a"):
            await self.store.clear((_APPROLE, Plain(mount), Plain(kind), name))

    async def secret_id(self, mount: str, name: str, hashed: str) -> tuple[SecretId, int] | None:
        """Returns a secret id and the revision of its record."""
        entry = await self.store.get(secret_path(mount, name, hashed))
        return (
            (msgspec.msgpack.decode(entry.value, type=SecretId), entry.revision) if entry else None
        )

    async def hash_by_accessor(self, mount: str, name: str, accessor: str) -> str:
        """Returns what a secret id is kept under, by its accessor; empty where there is none."""
        entry = await self.store.get(_accessor(mount, name, accessor)) if accessor else None
        return entry.value.decode() if entry else ""

    async def accessors(self, mount: str, name: str) -> list[str]:
        """Returns the accessors of a role's secret ids, sorted."""
        children = await self.store.children((_APPROLE, Plain(mount), Plain("a"), name))
        return [accessor for accessor, _ in children]

    async def add_secret_id(
        self, mount: str, name: str, role: Role, hashed: str, secret: SecretId
    ) -> None:
        """Keeps a secret id of a role, if that stands: what is made for one that is gone, nobody would remove.

        Raises:
            ServiceError: INVALID where it is there already; NOT_FOUND where the role is gone, or the mount was
                disabled; CONFLICT.
        """
        path = secret_path(mount, name, hashed)
        puts = {
            path: msgspec.msgpack.encode(secret),
            _accessor(mount, name, secret.accessor): hashed.encode(),
        }
        for _ in range(self._attempts):
            found = await self._read(mount, name)
            # Another role of the same name has another salt.
            if found is None or found[0].salt != role.salt:
                await check_there(self.store, mount)
                raise not_found()
            expect = {path: 0, role_path(mount, name): found[1], gone_path(mount): 0}
            with contextlib.suppress(ConflictError):
                await self.store.commit(Transaction(expect=expect, puts=puts))
                return
            await check_there(self.store, mount)
            if await self.secret_id(mount, name, hashed) is not None:
                raise invalid("secret_id: is already registered")
        raise conflict()

    async def destroy(self, mount: str, name: str, hashed: str, accessor: str) -> None:
        """Removes a secret id."""
        await self.store.commit(removal(mount, name, hashed, accessor))

    async def sweep(self, now: float) -> None:
        """Removes secret ids whose time is over, or whose role is gone. May be repeated, by any replica."""
        after: Path | None = None
        while entries := await self.store.scan(
            (_APPROLE,), after=after, limit=_PAGE, past_unreadable=True
        ):
            after = entries[-1].path
            for entry in entries:
                if len(entry.path) != 5 or entry.path[2] != "s":
                    continue
                with going_past(self.store, entry.path):
                    secret = msgspec.msgpack.decode(entry.value, type=SecretId)
                    _, mount, _, name, hashed = entry.path
                    # Whoever removed the role may have died before this.
                    if not secret.alive(now) or await self.get(mount, name) is None:
                        gone = removal(mount, name, hashed, secret.accessor)
                        # By a text that people chose, one may be made again once another replica has removed it.
                        gone.expect[entry.path] = entry.revision
                        with contextlib.suppress(ConflictError):
                            await self.store.commit(gone)

    async def drop_mount(self, mount: str) -> None:
        """Removes everything of a mount; may be repeated."""
        await self.store.clear((_APPROLE, Plain(mount)))

    async def _read(self, mount: str, name: str) -> tuple[Role, int] | None:
        entry = await self.store.get(role_path(mount, name))
        return (msgspec.msgpack.decode(entry.value, type=Role), entry.revision) if entry else None


def new_role(role_id: str = "") -> Role:
    """Returns a role with defaults, and an id of its own unless one is given."""
    return Role(role_id or str(uuid.uuid4()), os.urandom(32))


def secret_path(mount: str, name: str, hashed: str) -> Path:
    """Returns where a secret id is."""
    return (_APPROLE, Plain(mount), Plain("s"), name, Plain(hashed))


def removal(mount: str, name: str, hashed: str, accessor: str) -> Transaction:
    """Returns the transaction that removes a secret id."""
    return Transaction(deletes=[secret_path(mount, name, hashed), _accessor(mount, name, accessor)])


def role_path(mount: str, name: str) -> Path:
    """Returns where a role is."""
    if not name:
        raise invalid("role_name: must not be empty")
    return (_APPROLE, Plain(mount), Plain("r"), name)


def _id(mount: str, role_id: str) -> Path:
    return (_APPROLE, Plain(mount), Plain("i"), role_id)


def _accessor(mount: str, name: str, accessor: str) -> Path:
    return (_APPROLE, Plain(mount), Plain("a"), name, accessor)

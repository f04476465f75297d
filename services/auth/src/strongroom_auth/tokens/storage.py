"""Where tokens are kept. Every change is one transaction.

salt                        keys the HMAC of token texts
token/<id>                  the token
accessor/<accessor>         its id
child/<parent>/<id>         children of a token
mount/<uuid>/<id>           tokens that a login mount made
lease/<segment>/…/<id>      all but root's first, by the segments of the paths that made them
due/<time>/<id>             when it ends, for the worker that removes what has ended
cleanup/<id>                work that is left after a revocation
listed                      all tokens stand below lease/, those that earlier versions made as well
"""

import contextlib
import hmac
import os

import msgspec

from strongroom_auth.tokens.records import Token
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.requests import page_of_entries
from strongroom_runtime.storage import (
    ConflictError,
    Path,
    Plain,
    ReadSet,
    Store,
    Transaction,
    going_past,
)
from strongroom_runtime.time_index import TimeIndex
from strongroom_runtime.unchanged import unless_unchanged

_TOKEN, _CHILD, _MOUNT = Plain("token"), Plain("child"), Plain("mount")
_DUE, _CLEANUP, _LEASE = Plain("due"), Plain("cleanup"), Plain("lease")
_SALT: Path = (Plain("salt"),)
_LISTED: Path = (Plain("listed"),)
_PAGE = 100
ROOT_PATH = "auth/token/root"  # of the token that is made at the start

_decode = msgspec.msgpack.Decoder(Token).decode
_encode = msgspec.msgpack.encode


class TokenStore:
    """The records of all tokens."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._due = TimeIndex(store, (_DUE,), digits=12)
        self._salt: bytes | None = None

    async def prepare(self) -> None:
        """Makes the salt where there is none: before requests, not within the first."""
        entry = await self.store.get(_SALT)
        if entry is None:
            salt = Transaction(expect={_SALT: 0}, puts={_SALT: os.urandom(32)})
            with contextlib.suppress(
                ConflictError
            ):  # another replica was faster: its salt is the one
                await self.store.commit(salt)
            entry = await self.store.get(_SALT)
        self._salt = entry.value if entry else None

    def forget(self) -> None:
        """Drops the salt at sealing."""
        self._salt = None

    def identify(self, text: str) -> str:
        """Returns the storage identity of a token's text."""
        if self._salt is None:
            raise ServiceError(Kind.UNAVAILABLE, "the auth service is starting")
        return hmac.digest(self._salt, text.encode(), "sha256").hex()

    async def get(self, token_id: str, reads: ReadSet | None = None) -> tuple[Token, int] | None:
        """Returns a token's record and its revision."""
        path = token_path(token_id)
        entry = await (reads.get(path) if reads is not None else self.store.get(path))
        return (_decode(entry.value), entry.revision) if entry is not None else None

    async def valid(
        self, token_id: str, now: float, reads: ReadSet | None = None
    ) -> tuple[Token, int] | None:
        """Returns a token that may be used: it and all its ancestors stand, up to one that let its children go."""
        found = await self.get(token_id, reads)
        if found is None or not found[0].alive(now):
            return None
        for ancestor in reversed(found[0].ancestors):
            above = await self.get(ancestor, reads)
            if above is None:
                return None
            if above[0].severed:
                break
            if not above[0].alive(now):
                return None
        return found

    async def by_accessor(self, accessor: str) -> str:
        """Returns the id of a token by its accessor; empty where there is none."""
        entry = await self.store.get((Plain("accessor"), accessor))
        return entry.value.decode() if entry is not None else ""

    async def count(self) -> int:
        """Returns how many tokens there are."""
        return await self.store.count((_TOKEN,))

    async def accessors(self) -> list[str]:
        """Returns the accessors of all tokens, sorted."""
        return [name for name, _ in await self.store.children((Plain("accessor"),))]

    def creation(self, token: Token, parent_revision: int = 0) -> Transaction:
        """Returns the transaction that makes a token; others may add to it.

        A child is made only while its parent's record is as it was read.
        """
        transaction = Transaction(
            expect={token_path(token.id): 0},
            puts={
                token_path(token.id): _encode(token),
                (Plain("accessor"), token.accessor): token.id.encode(),
            },
        )
        for path in _indexes(token):
            transaction.puts[path] = b""
        if token.parent:
            transaction.expect[token_path(token.parent)] = parent_revision
        return transaction

    async def replace(self, before: Token, after: Token, revision: int) -> None:
        """Writes a changed token over a revision of its record.

        Raises:
            ConflictError: it changed meanwhile.
        """
        transaction = Transaction(
            expect={token_path(before.id): revision}, puts={token_path(after.id): _encode(after)}
        )
        old = [_due(before)] if before.expires else []
        new = [_due(after)] if after.expires else []
        transaction.deletes += [path for path in old if path not in new]
        transaction.puts.update(dict.fromkeys(new, b""))
        await self.store.commit(transaction)

    async def remove(self, token: Token, revision: int) -> None:
        """Revokes a token: from now on neither it nor a descendant is valid. Leaves the cleaning to a worker.

        Raises:
            ConflictError: it changed meanwhile.
        """
        await self.store.commit(
            Transaction(
                expect={token_path(token.id): revision},
                puts={_cleanup(token.id): token.parent.encode()},
                deletes=[token_path(token.id), *_handles(token)],
            )
        )

    async def sever(self, token: Token, revision: int) -> None:
        """Revokes a token alone: its record stays, without any use, for as long as it has children.

        Raises:
            ConflictError: it changed meanwhile.
        """
        after = msgspec.structs.replace(token, severed=True, expires=0.0)
        await self.store.commit(
            Transaction(
                expect={token_path(token.id): revision},
                puts={
                    token_path(token.id): _encode(after),
                    _cleanup(token.id): token.parent.encode(),
                },
                deletes=_handles(token),
            )
        )

    async def due(self, now: float) -> list[tuple[str, contextlib.AbstractContextManager[None]]]:
        """Returns ids of tokens whose time is over, the oldest first, a page of them."""
        return [
            (str(e.path[2]), self._due.going_past(e.path)) for e in await self._due.due(now, _PAGE)
        ]

    async def jobs(self, after: str = "") -> list[tuple[str, str]]:
        """Returns (id, parent) of revoked tokens that are not cleaned up, a page of them behind an id."""
        if after:
            return await self._jobs(after)
        return await unless_unchanged(self.store, _CLEANUP, self._jobs)

    async def _jobs(self, after: str = "") -> list[tuple[str, str]]:
        behind = _cleanup(after) if after else None
        entries = await self.store.scan(
            (_CLEANUP,), after=behind, limit=_PAGE, past_unreadable=True
        )
        return [(str(e.path[1]), e.value.decode()) for e in entries]

    async def children(self, token_id: str) -> list[str]:
        """Returns ids of a token's children, a page of them."""
        return [
            str(e.path[2]) for e in await self.store.scan((_CHILD, Plain(token_id)), limit=_PAGE)
        ]

    async def of_mount(self, mount: str, after: str = "") -> list[str]:
        """Returns ids of the tokens that a mount made, a page of them behind an id."""
        prefix = (_MOUNT, Plain(mount))
        behind = (*prefix, Plain(after)) if after else None
        return [str(e.path[2]) for e in await self.store.scan(prefix, after=behind, limit=_PAGE)]

    async def lease_names(self, prefix: str) -> list[tuple[str, bool]]:
        """Returns the next segments of the paths that made tokens, below a prefix, and ids of tokens there.

        The flag is True for a segment.
        """
        return await self.store.children(_lease_path(prefix))

    async def lease_page(self, prefix: str, after: str, limit: int) -> list[str] | None:
        """Returns a page of the ids of tokens below a prefix; None where paths go on there.

        Raises:
            ServiceError: NOT_FOUND where there are none at all.
        """
        return await page_of_entries(self.store, _lease_path(prefix), after, limit)

    async def list_all(self) -> None:
        """Puts those among the leases that an earlier version made, once. May be repeated, by any replica."""
        if await self.store.get(_LISTED) is not None:
            return
        after: Path | None = None
        while entries := await self.store.scan(
            (_TOKEN,), after=after, limit=_PAGE, past_unreadable=True
        ):
            after = entries[-1].path
            wanted: dict[Path, Path] = {}
            for entry in entries:
                with going_past(self.store, entry.path):
                    token = _decode(entry.value)
                    if not token.severed:
                        wanted |= dict.fromkeys(_leases(token), entry.path)
            there = await self.store.get_many(list(wanted)) if wanted else []
            for path, found in zip(wanted, there, strict=True):
                if found is None:
                    await self._list(path, wanted[path])
        await self.store.commit(Transaction(puts={_LISTED: b""}))

    async def _list(self, path: Path, of: Path) -> None:
        """Puts a token among the leases, unless it has ended by now."""
        while (entry := await self.store.get(of)) is not None and not _decode(entry.value).severed:
            with contextlib.suppress(ConflictError):
                await self.store.commit(Transaction(expect={of: entry.revision}, puts={path: b""}))
                return

    async def leases_below(self, prefix: str, after: Path | None) -> list[Path]:
        """Returns paths, each with a token's id at its end, of tokens made below a prefix; a page behind a path."""
        entries = await self.store.scan(_lease_path(prefix), after=after, limit=_PAGE)
        return [entry.path for entry in entries]

    async def forget_index(
        self, token_id: str, *, parent: str = "", mount: str = "", due: float = 0.0
    ) -> None:
        """Removes index entries of a token that is no more."""
        deletes: list[Path] = []
        if parent:
            deletes.append((_CHILD, Plain(parent), Plain(token_id)))
        if mount:
            deletes.append((_MOUNT, Plain(mount), Plain(token_id)))
        if due:
            deletes.append((_DUE, Plain(f"{int(due):012}"), Plain(token_id)))
        await self.store.commit(Transaction(deletes=deletes))

    async def drop_severed(self, token_id: str, revision: int) -> None:
        """Removes the record of a token that was revoked alone and has no children any more.

        Raises:
            ConflictError: it changed meanwhile.
        """
        path = token_path(token_id)
        await self.store.commit(Transaction(expect={path: revision}, deletes=[path]))

    async def finish_job(self, token_id: str) -> None:
        """Forgets a cleaning that is done."""
        await self.store.commit(Transaction(deletes=[_cleanup(token_id)]))


def token_path(token_id: str) -> Path:
    """Returns where a token's record is."""
    return (_TOKEN, Plain(token_id))


def _cleanup(token_id: str) -> Path:
    return (_CLEANUP, Plain(token_id))


def _due(token: Token) -> Path:
    # Rounded up: what is found here has ended.
    return (_DUE, Plain(f"{int(token.expires) + 1:012}"), Plain(token.id))


def _lease_path(path: str) -> Path:
    return (_LEASE, *(segment for segment in path.split("/") if segment))


def _leases(token: Token) -> list[Path]:
    """Returns where a token stands among the leases: nowhere for the one that is made at the start."""
    return [] if token.path == ROOT_PATH else [(*_lease_path(token.path), Plain(token.id))]


def _indexes(token: Token) -> list[Path]:
    paths = _leases(token)
    if token.parent:
        paths.append((_CHILD, Plain(token.parent), Plain(token.id)))
    if token.mount:
        paths.append((_MOUNT, Plain(token.mount), Plain(token.id)))
    if token.expires:
        paths.append(_due(token))
    return paths


def _handles(token: Token) -> list[Path]:
    """Returns what leads to a token, but for the index of its parent's children, which the cleaning needs."""
    paths = [(Plain("accessor"), token.accessor), *_leases(token)]
    if token.mount:
        paths.append((_MOUNT, Plain(token.mount), Plain(token.id)))
    if token.expires:
        paths.append(_due(token))
    return paths

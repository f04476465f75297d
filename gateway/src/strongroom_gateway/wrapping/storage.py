"""Where wrapped answers are kept.

wrap-salt           keys the HMACs of wrapping tokens
wrap/<id>           the answer, under the token's HMAC
wrap-due/<time>/<id>  when it ends, with the token's accessor
wrap-accessor/<accessor>  which it is; the name is encrypted
"""

import contextlib
import hmac
import os
from collections.abc import Awaitable

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.secrets import new_accessor, new_token
from strongroom_runtime.shared_clock import SharedClock
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction
from strongroom_runtime.time_index import TimeIndex

_SALT: Path = (Plain("wrap-salt"),)
_WRAP, _DUE, _ACCESSOR = Plain("wrap"), Plain("wrap-due"), Plain("wrap-accessor")
_PAGE = 50


class Wrapped(msgspec.Struct, frozen=True):
    """A wrapped answer. `created` and `expires` are wall time, `ttl` seconds."""

    body: bytes
    path: str
    created: float
    ttl: int
    accessor: str

    @property
    def expires(self) -> float:
        """When it can no longer be opened."""
        return self.created + self.ttl

    def __repr__(self) -> str:
        return f"Wrapped({self.accessor})"


# Where a wrapped answer is, the answer, and the revision of its record.
_Found = tuple[Path, Wrapped, int]


class WrapStore:
    """All wrapped answers."""

    def __init__(self, store: Store, clock: SharedClock) -> None:
        self._store = store
        self._clock = clock
        self._due = TimeIndex(store, (_DUE,), digits=12)

    async def wrap(self, body: bytes, path: str, ttl: int) -> tuple[str, Wrapped]:
        """Keeps an answer; returns the token that opens it, which is seen this once."""
        await self._clock.ready()  # a request may come in the moment of unsealing
        salt = await self._salt()
        text = new_token()
        wrapped = Wrapped(body, path, self._clock.now(), ttl, new_accessor())
        await self._store.commit(_put(_id(salt, text), wrapped))
        return text, wrapped

    async def look(self, text: str) -> Wrapped:
        """Returns what a token keeps, and leaves it.

        Raises:
            ServiceError: INVALID where the token is not valid.
        """
        return (await self._find(text))[1]

    async def open(self, text: str) -> Wrapped:
        """Returns what a token keeps, once, however many ask at the same moment.

        Raises:
            ServiceError: INVALID where the token is not valid.
        """
        path, wrapped, revision = await self._find(text)
        try:
            await self._store.commit(_removal(path, wrapped, revision))
        except ConflictError:
            raise _not_valid() from None
        return wrapped

    async def move(self, text: str) -> tuple[str, Wrapped]:
        """Keeps the same under a new token, for as long as before, in one transaction."""
        path, wrapped, revision = await self._find(text)
        fresh = new_token()
        moved = msgspec.structs.replace(wrapped, created=self._clock.now(), accessor=new_accessor())
        transaction = _removal(path, wrapped, revision)
        transaction.puts |= _put(_id(await self._salt(), fresh), moved).puts
        try:
            await self._store.commit(transaction)
        except ConflictError:
            raise _not_valid() from None
        return fresh, moved

    async def by_accessor(self, accessor: str) -> Wrapped | None:
        """Returns what the token of an accessor keeps; None where there is none."""
        found = await self._of_accessor(accessor)
        return found[1] if found is not None else None

    async def find(self, text: str) -> Wrapped | None:
        """Returns what a token keeps, and leaves it; None where the token is not valid."""
        found = await _valid(self._find(text))
        return found[1] if found is not None else None

    async def revoke_accessor(self, accessor: str) -> bool:
        """Forgets what the token of an accessor keeps; returns False where there is none, or it was opened first."""
        return await self._forget(await self._of_accessor(accessor))

    async def revoke(self, text: str) -> bool:
        """Forgets what a token keeps; returns False where it is not valid, or was used first."""
        return await self._forget(await _valid(self._find(text)))

    async def sweep(self) -> bool:
        """Removes a page of what can no longer be opened; returns whether there may be more."""
        due = await self._due.due(self._clock.now(), _PAGE)
        if due:
            deletes: list[Path] = [e.path for e in due]
            deletes += [(_WRAP, e.path[2]) for e in due]
            # Those of an earlier version have no accessor.
            deletes += [(_ACCESSOR, e.value.decode()) for e in due if e.value]
            await self._store.commit(Transaction(deletes=deletes))
        return len(due) == _PAGE

    def now(self) -> float:
        """Returns the time by which wrapped answers end."""
        return self._clock.now()

    async def _of_accessor(self, accessor: str) -> _Found | None:
        if not 0 < len(accessor) <= 512:
            return None
        await self._clock.ready()
        entry = await self._store.get((_ACCESSOR, accessor))
        if entry is None:
            return None
        return await _valid(self._read((_WRAP, Plain(entry.value.decode()))))

    async def _forget(self, found: _Found | None) -> bool:
        if found is None:
            return False
        try:
            await self._store.commit(_removal(*found))
        except ConflictError:
            return False
        return True

    async def _find(self, text: str) -> _Found:
        if not 0 < len(text) <= 512:
            raise _not_valid()
        await self._clock.ready()
        return await self._read((_WRAP, Plain(_id(await self._salt(), text))))

    async def _read(self, path: Path) -> _Found:
        entry = await self._store.get(path)
        if entry is None:
            raise _not_valid()
        wrapped = msgspec.msgpack.decode(entry.value, type=Wrapped)
        if wrapped.expires <= self._clock.now():
            raise _not_valid()
        return path, wrapped, entry.revision

    async def _salt(self) -> bytes:
        entry = await self._store.get(_SALT)
        if entry is None:
            with contextlib.suppress(ConflictError):  # another gateway was faster
                await self._store.commit(
                    Transaction(expect={_SALT: 0}, puts={_SALT: os.urandom(32)})
                )
            entry = await self._store.get(_SALT)
        return entry.value if entry is not None else b""


async def _valid(finding: Awaitable[_Found]) -> _Found | None:
    """Returns what is found; None where the token is not valid. Other errors stand: nobody knows then."""
    try:
        return await finding
    except ServiceError as error:
        if error.kind is not Kind.INVALID:
            raise
        return None


def _id(salt: bytes, text: str) -> str:
    return hmac.digest(salt, text.encode(errors="replace"), "sha256").hex()


def _due(token_id: str, wrapped: Wrapped) -> Path:
    return (_DUE, Plain(f"{int(wrapped.expires) + 1:012}"), Plain(token_id))


def _put(token_id: str, wrapped: Wrapped) -> Transaction:
    return Transaction(
        puts={
            (_WRAP, Plain(token_id)): msgspec.msgpack.encode(wrapped),
            _due(token_id, wrapped): wrapped.accessor.encode(),
            (_ACCESSOR, wrapped.accessor): token_id.encode(),
        }
    )


def _removal(path: Path, wrapped: Wrapped, revision: int) -> Transaction:
    deletes: list[Path] = [path, _due(str(path[1]), wrapped), (_ACCESSOR, wrapped.accessor)]
    return Transaction(expect={path: revision}, deletes=deletes)


def _not_valid() -> ServiceError:
    return invalid("wrapping token is not valid or does not exist")

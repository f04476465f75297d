"""Making, using, renewing and revoking tokens."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from strongroom_auth.config import Config
from strongroom_auth.tokens import rules
from strongroom_auth.tokens.records import Token
from strongroom_auth.tokens.storage import ROOT_PATH, TokenStore
from strongroom_runtime import lifetimes
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError, denied, invalid
from strongroom_runtime.secrets import new_accessor, new_token
from strongroom_runtime.storage import ConflictError, ReadSet, Store, Transaction

# (token): what the role that a token was made by allows it now; raises if it is gone.
Renewer = Callable[[Token], Awaitable["RenewalRule"]]


@dataclass(frozen=True, slots=True)
class RenewalRule:
    """What its maker gives a token that is renewed; 0 where it does not say."""

    usual: int
    longest: int = 0
    period: int = 0
    explicit_max: int = 0


@dataclass(frozen=True, slots=True)
class MountBounds:
    """How long tokens of a mount live, usually and at the most, as it is tuned now; no `mount` is auth/token."""

    usual: int
    longest: int
    mount: str = ""

    def of(self, token: Token) -> tuple[int, int]:
        """Returns the bounds of a token: these, or those that its mount had at its login, where another asks."""
        if token.mount == self.mount:
            return self.usual, self.longest
        return token.ttl, token.longest


@dataclass(frozen=True, slots=True)
class Grant:
    """A token to make."""

    policies: tuple[str, ...]
    path: str
    display_name: str
    ttl: int = 0
    explicit_max: int = 0
    period: int = 0
    longest: int = 0
    uses: int = 0
    renewable: bool = True
    meta: dict[str, str] = field(default_factory=dict)
    cidrs: tuple[str, ...] = ()
    role: str = ""
    mount: str = ""
    text: str = ""
    login: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, and its text, which is seen this once."""

    token: Token
    text: str

    def __repr__(self) -> str:
        return f"Issued({self.token.accessor})"


@dataclass(frozen=True, slots=True)
class Renewed:
    """A token that was renewed, its time to live from now, and what was done otherwise than asked."""

    token: Token
    ttl: int
    warnings: tuple[str, ...]


class Tokens:
    """All tokens."""

    def __init__(self, store: Store, clock: Clock, config: Config) -> None:
        self.records = TokenStore(store)
        self.renewers: dict[str, Renewer] = {}
        self._store = store
        self._clock = clock
        self._attempts = config.attempts

    def now(self) -> float:
        """Returns the time by which tokens end."""
        return self._clock.now()

    def prepare(
        self, grant: Grant, parent: tuple[Token, int] | None = None
    ) -> tuple[Issued, Transaction]:
        """Returns a new token and the transaction that makes it, to which a login adds what must happen with it.

        Raises:
            ServiceError: INVALID for a bad address range or text, and for a policy that tokens are not given.
        """
        rules.check_cidrs("bound_cidrs", grant.cidrs)
        rules.check_assignable(grant.policies)
        now = self._clock.now()
        text = grant.text or new_token()
        token = Token(
            id=self.records.identify(text),
            accessor=new_accessor(),
            policies=grant.policies,
            created=now,
            expires=now + grant.ttl if grant.ttl else 0.0,
            ttl=grant.ttl,
            path=grant.path,
            meta=grant.meta,
            display_name=grant.display_name,
            ancestors=(*parent[0].ancestors, parent[0].id) if parent else (),
            uses=grant.uses,
            renewable=grant.renewable and grant.ttl > 0,
            explicit_max=grant.explicit_max,
            period=grant.period,
            longest=grant.longest,
            role=grant.role,
            cidrs=grant.cidrs,
            mount=grant.mount,
            login=grant.login,
        )
        return Issued(token, text), self.records.creation(token, parent[1] if parent else 0)

    async def create(self, grant: Grant, parent_id: str = "") -> Issued:
        """Makes a token, a child of a parent's where one is named.

        Raises:
            ServiceError: DENIED where the parent is no more, INVALID where the text is in use.
        """
        for _ in range(self._attempts):
            parent = await self.records.valid(parent_id, self.now()) if parent_id else None
            if parent_id and parent is None:
                raise denied()
            issued, transaction = self.prepare(grant, parent)
            with contextlib.suppress(ConflictError):
                await self._store.commit(transaction)
                return issued
            if await self.records.get(issued.token.id) is not None:
                raise invalid("cannot create a token with a duplicate ID")
        raise conflict()

    async def resolve(self, text: str, address: str, reads: ReadSet | None = None) -> Token | None:
        """Returns the token of a text, if it may be used from an address."""
        if not 0 < len(text) <= 512:
            return None
        found = await self.records.valid(self.records.identify(text), self.now(), reads)
        if found is None or not rules.address_allowed(found[0].cidrs, address):
            return None
        return found[0]

    async def use(self, text: str, address: str) -> tuple[Token, bool] | None:
        """Counts one use of a token whose uses are limited; returns it and whether it was the last.

        Exact, however many replicas count at once.
        """
        token_id = self.records.identify(text)
        for _ in range(self._attempts * 10):
            found = await self.records.valid(token_id, self.now())
            if found is None or not rules.address_allowed(found[0].cidrs, address):
                return None
            token, revision = found
            if not token.uses:
                return token, False
            last = token.uses == 1
            # Whoever makes the last use revokes the token after it; should that process die, its time is over.
            left = msgspec.structs.replace(token, uses=token.uses - 1)
            if last:
                left = msgspec.structs.replace(
                    left, used_up=True, expires=self.now(), had_until=token.expires
                )
            with contextlib.suppress(ConflictError):
                await self.records.replace(token, left, revision)
                return left, last
        raise conflict()

    async def find(self, token_id: str) -> Token | None:
        """Returns a valid token by its id."""
        found = await self.records.valid(token_id, self.now()) if token_id else None
        return found[0] if found else None

    async def named(self, token_id: str = "", text: str = "", accessor: str = "") -> Token | None:
        """Returns a valid token by what of the three is given."""
        if text:
            token_id = self.records.identify(text)
        elif accessor:
            token_id = await self.records.by_accessor(accessor)
        return await self.find(token_id)

    async def renew(self, token_id: str, increment: int, bounds: MountBounds) -> Renewed:
        """Lengthens a token's life.

        Args:
            token_id: whose.
            increment: seconds from now; 0 for what its maker says.
            bounds: of a mount, as it is tuned now.

        Raises:
            ServiceError: DENIED where it is no more, INVALID where it cannot be renewed.
        """
        for _ in range(self._attempts):
            found = await self.records.valid(token_id, self.now())
            if found is None:
                raise denied("bad token")
            token, revision = found
            if not token.renewable:
                raise invalid("lease is not renewable")
            rule = await self.renewers[token.login.get("method", "")](token)
            usual, longest = bounds.of(token)
            now = self.now()
            span = lifetimes.span(
                now=now,
                created=token.created,
                asked=increment,
                usual=rule.usual or usual,
                longest=lifetimes.least(rule.longest, longest),
                period=rule.period,
                explicit_max=rule.explicit_max or token.explicit_max,
            )
            if span.ttl <= 0:
                # Bounds may have become narrower: the token stands for as long as it was given.
                raise invalid("past the max TTL, cannot renew")
            renewed = msgspec.structs.replace(token, expires=now + span.ttl, renewed=now)
            with contextlib.suppress(ConflictError):
                await self.records.replace(token, renewed, revision)
                return Renewed(renewed, span.ttl, span.warnings)
        raise conflict()

    async def revoke(self, token_id: str, *, alone: bool = False) -> bool:
        """Revokes a token and its descendants, or it alone; returns whether there was one.

        One that was revoked alone is none any more, though its record stands for as long as its children live.
        """
        for _ in range(self._attempts):
            found = await self.records.get(token_id)
            if found is None or found[0].severed:
                return False
            with contextlib.suppress(ConflictError):
                await (self.records.sever(*found) if alone else self.records.remove(*found))
                return True
        raise conflict()

    async def adopt_root(self, text: str) -> None:
        """Makes a text a root token; done before, it changes nothing."""
        if await self.records.get(self.records.identify(text)) is not None:
            return
        grant = Grant(("root",), ROOT_PATH, "root", text=text, renewable=False)
        with contextlib.suppress(ServiceError):
            await self.create(grant)
        if await self.records.get(self.records.identify(text)) is None:
            raise ServiceError(Kind.UNAVAILABLE, "the root token could not be kept")


def conflict() -> ServiceError:
    """Returns the error for a change that lost every race."""
    return ServiceError(Kind.CONFLICT, "others change the same thing all the time; try again")

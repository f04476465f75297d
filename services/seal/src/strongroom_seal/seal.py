"""The seal of this process: closed, or open with the key ring in memory."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable, Mapping

from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import Caller
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.secrets import new_token
from strongroom_runtime.storage import CompactedError, ConflictError, Path, Store, Transaction
from strongroom_seal.adoption import Adoption
from strongroom_seal.config import Config
from strongroom_seal.domain import ceremony
from strongroom_seal.domain.ceremony import KEY_BYTES, Gathering
from strongroom_seal.domain.keys import MasterRing, new_ring
from strongroom_seal.openers import Openers, share_bytes
from strongroom_seal.storage import SealConfig, SealStore

_RETRY_SECONDS = 0.2
_TRIES = 20


class Seal:
    """Opens and closes; tells subscribers when the keys change.

    Args:
        store: the seal service's own, unencrypted.
        auth: makes root tokens usable.
        config: what the operator chose.
        clock: for the times of terms.
    """

    def __init__(self, store: Store, auth: Caller, config: Config, clock: Clock) -> None:
        self._raw = store
        self.store = SealStore(store)
        self.openers = Openers(self.store, config)
        self._adoption = Adoption(self.store, auth)
        self._config = config
        self._clock = clock
        self._root: bytes | None = None
        self._opener: bytes | None = None  # what the root key is kept under
        self._ring: MasterRing | None = None
        self._gathering: Gathering | None = None
        # Set once it is known whether this process unseals by itself.
        self.started = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []
        self._changing = asyncio.Lock()
        self._opened_at = 0  # the store's revision: sealings up to it are over
        self._root_revision = 0
        self._closings = 0
        self._closed_on_purpose = False  # a static seal stays closed then

    @property
    def sealed(self) -> bool:
        """Whether this process has no keys."""
        return self._ring is None

    @property
    def ring(self) -> MasterRing:
        """The key ring.

        Raises:
            ServiceError: SEALED.
        """
        if self._ring is None:
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        return self._ring

    @property
    def root(self) -> bytes:
        """The root key.

        Raises:
            ServiceError: SEALED.
        """
        if self._root is None:
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        return self._root

    @property
    def gathering(self) -> Gathering | None:
        """The unseal under way."""
        return self._gathering

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls a function whenever the keys change or go; returns what ends it."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    async def config(self) -> SealConfig | None:
        """Returns how the keys are split, or None before there are any."""
        return await self.store.config()

    async def initialise(self, shares: int, threshold: int) -> tuple[list[bytes], list[bytes], str]:
        """Makes the keys; returns unseal shares, recovery shares (one of the lists is empty) and the root token.

        Raises:
            ServiceError: INVALID.
        """
        if await self.store.config() is not None:
            raise invalid("Vault is already initialized")
        static = self.openers.static_key()
        # The unseal key, or the recovery key beside a static one.
        person_key = os.urandom(KEY_BYTES)
        parts = ceremony.split(person_key, shares, threshold)
        kind = "shamir" if static is None else "static"
        config = SealConfig(kind, shares, threshold, str(uuid.uuid4()), self._config.cluster_name)
        ring = new_ring(self._clock.now(), await self._raw.revision())
        token = new_token()
        # The token is in the same transaction: whoever crashes from here on, the next to unseal makes it usable.
        root = await self.store.initialise(
            config, static or person_key, person_key if static else None, ring, token
        )
        # From here on nothing may keep the shares from the caller: they are seen this once.
        with contextlib.suppress(ServiceError):
            await self._open(root, static or person_key)
        await self._adoption.wait(self._config.adopt_seconds)
        if static is None:
            # As in Vault, a seal with shares is closed after its initialisation. The keys were in memory just long
            # enough to make the root token usable.
            self.close()
        return ([] if static else parts, parts if static else [], token)

    async def unseal_at_start(self) -> None:
        """Opens by itself where a static key is configured and there are keys."""
        static = self.openers.static_key()
        config = await self.store.config()
        if static is not None and config is not None and self.sealed:
            root = await self.store.root_key(static)
            if root is None:
                raise ServiceError(
                    Kind.FAILED_PRECONDITION,
                    f"{self._config.static_key_file}: not the key of this seal",
                )
            await self._open(root, static)
        self.started.set()

    async def add_share(self, text: str) -> None:
        """Takes a share; with enough of them the seal opens.

        Raises:
            ServiceError: INVALID for a share that is malformed or wrong. Wrong ones are found together, by the last.
        """
        config = await self.openers.config()
        share = ceremony.parse_share(text, share_bytes(config.shares))
        if not self.sealed:
            return
        if self._gathering is None:
            self._gathering = Gathering(config.threshold)
        try:
            key = self._gathering.add(share)
        except ServiceError:
            self._gathering = None
            raise
        if key is None:
            return
        self._gathering = None
        root, opener = await self.openers.root_from(config, key)
        await self._open(root, opener)
        self._closed_on_purpose = False

    def reset_shares(self) -> None:
        """Forgets the shares given so far."""
        self._gathering = None

    async def seal(self) -> None:
        """Closes the seal here, whatever happens, and in every other seal process.

        Raises:
            ServiceError: UNAVAILABLE where the others could not be told.
        """
        self._close_on_purpose()
        await self.store.count_sealing()

    def close(self) -> None:
        """Forgets the keys of this process."""
        self._adoption.cancel()
        self._closings += 1
        self._root = self._opener = self._ring = self._gathering = None
        self._tell()

    async def change_ring(self, change: Callable[[MasterRing, int], MasterRing | None]) -> None:
        """Replaces the ring by what a function makes of it and the store's revision; None leaves it.

        Raises:
            ServiceError: SEALED.
        """
        async with self._changing:
            for _ in range(_TRIES):
                root = self.root
                ring, revision = await self.store.ring(root)
                changed = change(ring, await self._raw.revision())
                if changed is None:
                    return
                with contextlib.suppress(ConflictError):
                    await self.store.replace_ring(root, changed, revision)
                    self._take(root, changed)
                    return
            raise ServiceError(Kind.CONFLICT, "the key ring was changed too often meanwhile")

    async def change_root(
        self,
        config: SealConfig,
        unseal_key: bytes,
        claim: Transaction,
        replaced: Mapping[Path, bytes],
    ) -> None:
        """Replaces the root key and all that is under it, together with what `claim` holds.

        Args:
            config: how the keys are split from now on.
            unseal_key: what the new root key is kept under.
            claim: its deletes are not written again.
            replaced: what comes in place of what is under the root key.

        Raises:
            ConflictError: something of it was changed meanwhile; nothing is done.
            ServiceError: SEALED.
        """
        async with self._changing:
            await self._replace_root(config, unseal_key, claim, replaced)

    async def rotate_root(self) -> None:
        """Replaces the root key alone: what it is kept under stays, and so do the shares.

        Raises:
            ServiceError: SEALED; CONFLICT where others do the same again and again.
        """
        for _ in range(_TRIES):
            await self.catch_up()
            try:
                async with self._changing:
                    _ = self.root
                    if self._opener is not None:
                        await self._replace_root(None, self._opener, Transaction(), {})
                return
            except ConflictError:
                continue
        raise ServiceError(Kind.CONFLICT, "the root key was changed too often meanwhile")

    async def _replace_root(
        self,
        config: SealConfig | None,
        opener: bytes,
        claim: Transaction,
        replaced: Mapping[Path, bytes],
    ) -> None:
        old = self.root
        new, ring, revision = await self.store.replace_root(claim, config, opener, old, replaced)
        if self._root is old:
            self._root, self._opener = new, opener
            self._ring, self._root_revision = ring, revision
            self._adoption.begin(new)

    async def usage(self) -> int:
        """Returns about how much the term in use has encrypted."""
        return self.ring.operations(await self._raw.revision())

    async def make_root_token(self) -> str:
        """Returns a new root token that is usable."""
        _ = self.root
        token = new_token()
        await self._adoption.adopt(token)
        return token

    async def follow(self) -> None:
        """Does what other processes' rotations, sealings and initialisation ask for. Runs until cancelled."""
        work = Repeated("the following of the store")
        while True:
            with work.turn(), contextlib.suppress(CompactedError):
                start = await self._raw.revision()
                await self.catch_up()
                work.goes_well()
                async for changes in self._raw.watch((), from_revision=start + 1):
                    if changes.events:
                        await self.catch_up()
            await asyncio.sleep(_RETRY_SECONDS)

    async def catch_up(self) -> None:
        """Compares this process with the store. What was missed does not matter, only what stands there now."""
        async with self._changing:  # not in the middle of a change of this process itself
            if self._root and await self.store.root_revision() != self._root_revision:
                await self._follow_root()
        if await self.store.sealed_at() > self._opened_at and not self.sealed:
            self._close_on_purpose()
        elif self._root is not None:
            root = self._root
            ring, _ = await self.store.ring(root)
            if ring != self._ring:
                self._take(root, ring)
        elif not self._closed_on_purpose:
            await self.unseal_at_start()

    async def _follow_root(self) -> None:
        """Takes the root key that another process made, where it is kept under what opened this one; else closes."""
        revision = await self.store.root_revision()
        root = await self.store.root_key(self._opener) if self._opener is not None else None
        if root is None:
            self.close()  # the shares were replaced as well
        elif self._root is not None:
            self._root, self._root_revision = root, revision
            self._adoption.begin(root)

    def _close_on_purpose(self) -> None:
        self._closed_on_purpose = True
        self.close()

    def _take(self, root: bytes, ring: MasterRing) -> None:
        """Replaces the ring, unless the seal was closed while it was fetched: keys must not come back then."""
        if self._root is root:
            self._ring = ring
            self._tell()

    async def _open(self, root: bytes, opener: bytes) -> None:
        """Takes the keys. `opener` is what the root key is kept under.

        Raises:
            ServiceError: SEALED where the seal was closed meanwhile.
        """
        async with self._changing:
            if self._root is not None:
                return
            closings = self._closings
            opened_at = await self._raw.revision()
            root_revision = await self.store.root_revision()
            ring, _ = await self.store.ring(root)
            if closings != self._closings:
                raise ServiceError(Kind.SEALED, "Vault is sealed")
            self._opened_at, self._root_revision = opened_at, root_revision
            self._root, self._opener, self._ring = root, opener, ring
        self._tell()
        self._adoption.begin(root)

    def _tell(self) -> None:
        for changed in list(self._subscribers):
            changed()

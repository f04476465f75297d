"""The seal of this process: closed, or open with the key ring in memory."""

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable

from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import Caller
from strongroom_runtime.secrets import equal, new_token
from strongroom_runtime.storage import CompactedError, ConflictError, Store
from strongroom_seal.adoption import Adoption
from strongroom_seal.config import Config
from strongroom_seal.domain import ceremony
from strongroom_seal.domain.ceremony import KEY_BYTES, Gathering
from strongroom_seal.domain.keys import MasterRing, new_ring
from strongroom_seal.static_key import read_static_key
from strongroom_seal.storage import SealConfig, SealStore

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2


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
        self._store = SealStore(store)
        self._adoption = Adoption(self._store, auth)
        self._config = config
        self._clock = clock
        self._root: bytes | None = None
        self._ring: MasterRing | None = None
        self._gathering: Gathering | None = None
        self._subscribers: list[Callable[[], None]] = []
        self._changing = asyncio.Lock()
        self._opened_at = 0  # the store's revision: sealings up to it are over
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
    def gathering(self) -> Gathering | None:
        """The unseal under way."""
        return self._gathering

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls a function whenever the keys change or go; returns what ends it."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    async def config(self) -> SealConfig | None:
        """Returns how the keys are split, or None before there are any."""
        return await self._store.config()

    async def initialise(self, shares: int, threshold: int) -> tuple[list[bytes], list[bytes], str]:
        """Makes the keys; returns unseal shares, recovery shares (one of the lists is empty) and the root token.

        Raises:
            ServiceError: INVALID.
        """
        if await self._store.config() is not None:
            raise invalid("Vault is already initialized")
        static = self._static_key()
        person_key = os.urandom(
            KEY_BYTES
        )  # the unseal key, or the recovery key beside a static one
        parts = ceremony.split(person_key, shares, threshold)
        kind = "shamir" if static is None else "static"
        config = SealConfig(kind, shares, threshold, str(uuid.uuid4()), self._config.cluster_name)
        ring, token = new_ring(self._clock.now()), new_token()
        # The token is in the same transaction: whoever crashes from here on, the next to unseal makes it usable.
        root = await self._store.initialise(
            config, static or person_key, person_key if static else None, ring, token
        )
        # From here on nothing may keep the shares from the caller: they are seen this once.
        with contextlib.suppress(ServiceError):
            await self._open(root)
        await self._adoption.wait(self._config.adopt_seconds)
        if static is None:
            # As in Vault, a seal with shares is closed after its initialisation. The keys were in memory just long
            # enough to make the root token usable.
            self.close()
        return ([] if static else parts, parts if static else [], token)

    async def unseal_at_start(self) -> None:
        """Opens by itself where a static key is configured and there are keys."""
        static = self._static_key()
        config = await self._store.config()
        if static is None or config is None or not self.sealed:
            return
        root = await self._store.root_key(static)
        if root is None:
            raise ServiceError(
                Kind.FAILED_PRECONDITION,
                f"{self._config.static_key_file}: not the key of this seal",
            )
        await self._open(root)

    async def add_share(self, text: str) -> None:
        """Takes a share; with enough of them the seal opens.

        Raises:
            ServiceError: INVALID for a share that is malformed or wrong. Wrong ones are found together, by the last.
        """
        config = await self._need_config()
        if not self.sealed:
            return
        if self._gathering is None:
            self._gathering = Gathering(config.threshold)
        share = ceremony.parse_share(text, _share_bytes(config))
        try:
            key = self._gathering.add(share)
        except ServiceError:
            self._gathering = None
            raise
        if key is None:
            return
        self._gathering = None
        await self._open(await self._root_from(config, key))
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
        await self._store.count_sealing()

    def close(self) -> None:
        """Forgets the keys of this process."""
        self._adoption.cancel()
        self._closings += 1
        self._root = self._ring = self._gathering = None
        self._tell()

    async def rotate(self) -> None:
        """Begins a new term."""
        async with self._changing:
            while True:
                root = self._root
                if root is None:
                    raise ServiceError(Kind.SEALED, "Vault is sealed")
                ring, revision = await self._store.ring(root)
                rotated = ring.rotated(self._clock.now())
                with contextlib.suppress(ConflictError):
                    await self._store.replace_ring(root, rotated, revision)
                    self._take(root, rotated)
                    return

    async def check_people(self, key: bytes) -> None:
        """Raises unless a key is the one that people hold shares of.

        Raises:
            ServiceError: INVALID.
        """
        await self._root_from(await self._need_config(), key)

    async def make_root_token(self) -> str:
        """Returns a new root token that is usable."""
        if self._root is None:
            raise ServiceError(Kind.SEALED, "Vault is sealed")
        token = new_token()
        await self._adoption.adopt(token)
        return token

    async def follow(self) -> None:
        """Does what other processes' rotations, sealings and initialisation ask for. Runs until cancelled."""
        while True:
            try:
                start = await self._raw.revision()
                await self._catch_up()
                async for _ in self._raw.watch((), from_revision=start + 1):
                    await self._catch_up()
            except CompactedError:
                continue
            except ServiceError as error:
                log.warning("the store cannot be followed", extra={"kind": error.kind.value})
                await asyncio.sleep(_RETRY_SECONDS)

    async def _catch_up(self) -> None:
        """Compares this process with the store. What was missed does not matter, only what stands there now."""
        if await self._store.sealed_at() > self._opened_at and not self.sealed:
            self._close_on_purpose()
        elif self._root is not None:
            root = self._root
            ring, _ = await self._store.ring(root)
            if ring != self._ring:
                self._take(root, ring)
        elif not self._closed_on_purpose:
            await self.unseal_at_start()

    def _close_on_purpose(self) -> None:
        self._closed_on_purpose = True
        self.close()

    def _take(self, root: bytes, ring: MasterRing) -> None:
        """Replaces the ring, unless the seal was closed while it was fetched: keys must not come back then."""
        if self._root is root:
            self._ring = ring
            self._tell()

    async def _need_config(self) -> SealConfig:
        config = await self._store.config()
        if config is None:
            raise invalid("Vault is not initialized")
        return config

    async def _root_from(self, config: SealConfig, key: bytes) -> bytes:
        """Returns the root key, given what people's shares make together."""
        wrong = invalid("error unsealing: the shares do not make the key; give them again")
        if config.type == "shamir":
            root = await self._store.root_key(key)
        else:
            static = self._static_key()
            root = await self._store.root_key(static) if static else None
            known = await self._store.recovery_key(root) if root else None
            if known is None or not equal(known, key):
                raise wrong
        if root is None:
            raise wrong
        return root

    async def _open(self, root: bytes) -> None:
        """Takes the keys.

        Raises:
            ServiceError: SEALED where the seal was closed meanwhile.
        """
        async with self._changing:
            if self._root is not None:
                return
            closings = self._closings
            opened_at = await self._raw.revision()
            ring, _ = await self._store.ring(root)
            if closings != self._closings:
                raise ServiceError(Kind.SEALED, "Vault is sealed")
            self._opened_at, self._root, self._ring = opened_at, root, ring
        self._tell()
        self._adoption.begin(root)

    def _tell(self) -> None:
        for changed in list(self._subscribers):
            changed()

    def _static_key(self) -> bytes | None:
        file = self._config.static_key_file
        return read_static_key(file) if file is not None else None


def _share_bytes(config: SealConfig) -> int:
    return KEY_BYTES if config.shares == 1 else KEY_BYTES + 1

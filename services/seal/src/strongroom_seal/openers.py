"""What opens the seal: a key made of people's shares, or a key file."""

from strongroom_runtime.errors import invalid
from strongroom_runtime.secrets import equal
from strongroom_seal.config import Config
from strongroom_seal.domain.ceremony import KEY_BYTES
from strongroom_seal.static_key import read_static_key
from strongroom_seal.storage import SealConfig, SealStore


class Openers:
    """Gets the root key from outside this process."""

    def __init__(self, store: SealStore, config: Config) -> None:
        self._store = store
        self._file = config.static_key_file

    async def config(self) -> SealConfig:
        """Returns how the keys are split.

        Raises:
            ServiceError: INVALID before there are any.
        """
        config = await self._store.config()
        if config is None:
            raise invalid("Vault is not initialized")
        return config

    def static_key(self) -> bytes | None:
        """Returns the key that opens by itself, if one is configured."""
        return read_static_key(self._file) if self._file is not None else None

    async def root_from(self, config: SealConfig, key: bytes) -> tuple[bytes, bytes]:
        """Returns the root key, given what people's shares make together, and what it is kept under.

        Raises:
            ServiceError: INVALID where it is not the key.
        """
        wrong = invalid("error unsealing: the shares do not make the key; give them again")
        opener = key if config.type == "shamir" else self.static_key()
        root = await self._store.root_key(opener) if opener is not None else None
        if root is None or opener is None:
            raise wrong
        if config.type != "shamir":
            known = await self._store.recovery_key(root)
            if known is None or not equal(known, key):
                raise wrong
        return root, opener


def share_bytes(shares: int) -> int:
    """Returns how long each of so many shares is: one share alone is the key itself."""
    return KEY_BYTES if shares == 1 else KEY_BYTES + 1

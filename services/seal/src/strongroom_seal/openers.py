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

    async def root_from(self, config: SealConfig, key: bytes) -> bytes:
        """Returns the root key, given what people's shares make together.

        Raises:
            ServiceError: INVALID where it is not the key.
        """
        wrong = invalid("error unsealing: the shares do not make the key; give them again")
        if config.type == "shamir":
            root = await self._store.root_key(key)
        else:
            static = self.static_key()
            root = await self._store.root_key(static) if static else None
            known = await self._store.recovery_key(root) if root else None
            if known is None or not equal(known, key):
                raise wrong
        if root is None:
            raise wrong
        return root


def share_bytes(config: SealConfig) -> int:
    """Returns how long a share is: one share alone is the key itself."""
    return KEY_BYTES if config.shares == 1 else KEY_BYTES + 1

"""Where the settings of the gateway are kept: all of them in one record, since every request needs some."""

import contextlib
from collections.abc import Callable

import msgspec

from strongroom_gateway.http.cors import Cors
from strongroom_gateway.quotas.limits import RateLimit, Selection
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.record import Record
from strongroom_runtime.storage import ConflictError, Entry, Path, Plain, Store, Transaction

_SETTINGS: Path = (Plain("settings"),)
_ATTEMPTS = 20

EXEMPT = (
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/seal-status",
    "sys/unseal",
)


class QuotaConfig(msgspec.Struct, frozen=True):
    """The settings of all quotas.

    Args:
        exempt: paths that no quota counts; one that ends with * stands for all that begin with it.
        audit_refused: whether refused requests are audited.
        headers: whether answers say how much is left.
    """

    exempt: tuple[str, ...] = EXEMPT
    audit_refused: bool = False
    headers: bool = False


class Settings(msgspec.Struct, frozen=True):
    """All settings.

    Args:
        cors: which web pages may use the HTTP API.
        ui_headers: headers of answers outside of /v1/, with their values.
        audited_headers: request headers that audit entries show, in lower case; True for as an HMAC.
        quotas: the settings of all quotas.
        rate_limits: quotas by name.
    """

    cors: Cors = Cors()
    ui_headers: dict[str, tuple[str, ...]] = {}
    audited_headers: dict[str, bool] = {}
    quotas: QuotaConfig = QuotaConfig()
    rate_limits: dict[str, RateLimit] = {}


class SettingsStore:
    """The settings, read from memory: a request that starts after a change has returned, anywhere, sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._record = Record(store, _SETTINGS, self._take)
        self.known = Settings()
        self.selection = Selection({})

    async def current(self) -> Settings:
        """Returns the settings as they are.

        Raises:
            ServiceError: SEALED, UNAVAILABLE; `known` has what was read last.
        """
        return await self._record.current()

    def _take(self, entry: Entry | None) -> Settings:
        self.known = _decode(entry.value) if entry is not None else Settings()
        self.selection = Selection(self.known.rate_limits)
        return self.known

    async def last(self) -> Settings:
        """Returns the settings as they are, or, while sealed or without storage, as they were last."""
        with contextlib.suppress(ServiceError):
            return await self.current()
        return self.known

    async def change(self, change: Callable[[Settings], Settings]) -> None:
        """Replaces the settings by what a function makes of them; asked again after a lost race.

        Raises:
            ServiceError: what the function raises; CONFLICT.
        """
        for _ in range(_ATTEMPTS):
            entry = await self._store.get(_SETTINGS)
            after = change(_decode(entry.value) if entry is not None else Settings())
            with contextlib.suppress(ConflictError):
                await self._store.commit(
                    Transaction(
                        expect={_SETTINGS: entry.revision if entry is not None else 0},
                        puts={_SETTINGS: msgspec.msgpack.encode(after)},
                    )
                )
                return
        raise ServiceError(Kind.CONFLICT, "others change the settings; try again")


def _decode(value: bytes) -> Settings:
    return msgspec.msgpack.decode(value, type=Settings)

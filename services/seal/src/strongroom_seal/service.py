"""Builds the seal service."""

from strongroom.seal.v1 import seal_pb2
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.service import BackgroundTasks, Host
from strongroom_seal.config import Config
from strongroom_seal.rpc import KeyHandlers, SealHandlers
from strongroom_seal.seal import Seal


class SealService:
    """The seal service. `seal` is for services of the same process, which take their keys from it directly."""

    def __init__(self, handlers: HandlerTable, seal: Seal) -> None:
        self.handlers = handlers
        self.seal = seal
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Begins to follow other seal processes, and unseals where that goes by itself."""
        self._tasks.start(self.seal.follow(), "follow-seal")
        await self.seal.unseal_at_start()

    async def stop(self) -> None:
        """Forgets the keys."""
        await self._tasks.stop()
        self.seal.close()


def build(host: Host, config: Config | None = None) -> SealService:
    """Returns the service. Its store is unencrypted; `host.peers` has `auth`."""
    config = config or Config()
    seal = Seal(host.store, host.peers["auth"], config, host.clock)
    handlers = HandlerTable()
    services = seal_pb2.DESCRIPTOR.services_by_name
    handlers.add(services["SealService"], SealHandlers(seal, config))
    handlers.add(services["KeyService"], KeyHandlers(seal))
    return SealService(handlers, seal)

"""Builds the seal service."""

from strongroom.seal.v1 import rekey_pb2, rotation_pb2, seal_pb2
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.service import BackgroundTasks, Host
from strongroom_seal.config import Config
from strongroom_seal.followers import Followers
from strongroom_seal.rekey import Rekey
from strongroom_seal.rotation import Rotation
from strongroom_seal.rpc.rekey import RekeyHandlers
from strongroom_seal.rpc.rotation import RotationPolicyHandlers
from strongroom_seal.rpc.seal import KeyHandlers, SealHandlers
from strongroom_seal.seal import Seal


class SealService:
    """The seal service. `seal` is for services of the same process, which take their keys from it directly."""

    def __init__(
        self, handlers: HandlerTable, seal: Seal, rotation: Rotation, config: Config
    ) -> None:
        self.handlers = handlers
        self.seal = seal
        self._rotation = rotation
        self._config = config
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Unseals where that goes by itself; begins to follow other seal processes and the rotation policy.

        May be repeated where it failed.

        Raises:
            ServiceError: UNAVAILABLE; FAILED_PRECONDITION where the key that is configured is not the right one.
        """
        await self.seal.unseal_at_start()
        self._tasks.start(self.seal.follow(), "follow-seal")
        self._tasks.start(self._rotation.run(self._config.rotation_check_seconds), "rotate-keys")

    async def stop(self) -> None:
        """Forgets the keys."""
        await self._tasks.stop()
        self.seal.close()


def build(host: Host, config: Config | None = None) -> SealService:
    """Returns the service. Its store is unencrypted; `host.peers` has `auth`."""
    config = config or Config()
    seal = Seal(host.store, host.peers["auth"], config, host.clock)
    rotation, followers = Rotation(seal, host.clock), Followers()
    handlers = HandlerTable()
    for module, name, implementation in (
        (seal_pb2, "SealService", SealHandlers(seal, followers, config, rotation)),
        (seal_pb2, "KeyService", KeyHandlers(seal, followers)),
        (rotation_pb2, "RotationPolicyService", RotationPolicyHandlers(seal, rotation)),
        (rekey_pb2, "RekeyService", RekeyHandlers(seal, Rekey(seal))),
    ):
        handlers.add(module.DESCRIPTOR.services_by_name[name], implementation)
    return SealService(handlers, seal, rotation, config)

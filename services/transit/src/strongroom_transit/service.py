"""Builds the transit service."""

from strongroom.transit.v1 import cipher_pb2, key_pb2, material_pb2, signature_pb2, stream_pb2
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.mount_marks import GoneMarks
from strongroom_runtime.service import BackgroundTasks, Host
from strongroom_transit.config import Config
from strongroom_transit.creation import Maker
from strongroom_transit.leftovers import Leftovers
from strongroom_transit.rotation import Rotation
from strongroom_transit.rpc.ciphers import CipherHandlers
from strongroom_transit.rpc.keys import KeyHandlers, LifecycleHandlers
from strongroom_transit.rpc.material import MaterialHandlers
from strongroom_transit.rpc.signatures import SignatureHandlers
from strongroom_transit.rpc.streams import StreamCipherHandlers, TransitStreamHandlers
from strongroom_transit.storage import Keys
from strongroom_transit.transfers import Transfers


class TransitService:
    """The transit service: named keys, and what is done with them."""

    def __init__(
        self, handlers: HandlerTable, rotation: Rotation, leftovers: Leftovers, marks: GoneMarks
    ) -> None:
        self.handlers = handlers
        self.marks = marks
        self.rotation = rotation
        self.leftovers = leftovers
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Begins to rotate keys that are due, and to remove what crashes and disabled mounts left."""
        self._tasks.start(self.rotation.run(), "transit-rotation")
        self._tasks.start(self.leftovers.run(), "transit-leftovers")
        self._tasks.start(self.marks.run(), "transit-gone-marks")

    async def stop(self) -> None:
        """Ends it."""
        await self._tasks.stop()


def build(host: Host, config: Config | None = None) -> TransitService:
    """Returns the service over a store."""
    config = config or Config()
    keys = Keys(host.store, config.attempts)
    maker = Maker(keys, host.clock)
    transfers = Transfers(keys, host.clock)
    handlers = HandlerTable()
    for module, name, implementation in (
        (key_pb2, "KeyService", KeyHandlers(keys, maker, host.clock)),
        (key_pb2, "TransitLifecycleService", LifecycleHandlers(keys)),
        (cipher_pb2, "CipherService", CipherHandlers(keys, maker, config)),
        (material_pb2, "MaterialService", MaterialHandlers(keys, transfers, host.clock)),
        (signature_pb2, "SignatureService", SignatureHandlers(keys, config)),
        (stream_pb2, "TransitStreamService", TransitStreamHandlers(keys, config)),
        (stream_pb2, "StreamCipherService", StreamCipherHandlers(keys)),
    ):
        handlers.add(module.DESCRIPTOR.services_by_name[name], implementation)
    rotation = Rotation(keys, maker, host.clock, config.rotation_seconds)
    leftovers = Leftovers(keys, host.clock, config.begun_seconds)
    marks = GoneMarks(host.store, host.clock, keys.drop_mount)
    return TransitService(handlers, rotation, leftovers, marks)

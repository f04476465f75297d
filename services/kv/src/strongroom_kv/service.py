"""Builds the kv service."""

from strongroom.kv.v1 import cubbyhole_pb2, kv1_pb2, kv2_pb2
from strongroom_kv.config import Config
from strongroom_kv.rpc.cubbyhole import CubbyholeHandlers, LifecycleHandlers
from strongroom_kv.rpc.v1 import KvV1Handlers
from strongroom_kv.rpc.v2 import KvV2Handlers
from strongroom_kv.storage import Secrets
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.mount_marks import GoneMarks
from strongroom_runtime.service import BackgroundTasks, Host


class KvService:
    """The kv service: secrets of mounts and of tokens."""

    def __init__(self, handlers: HandlerTable, marks: GoneMarks) -> None:
        self.handlers = handlers
        self.marks = marks
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Begins to forget disabled mounts."""
        self._tasks.start(self.marks.run(), "kv-gone-marks")

    async def stop(self) -> None:
        """Ends it."""
        await self._tasks.stop()


def build(host: Host, config: Config | None = None) -> KvService:
    """Returns the service over a store."""
    secrets = Secrets(host.store, (config or Config()).attempts)
    handlers = HandlerTable()
    for module, name, implementation in (
        (kv2_pb2, "KvV2Service", KvV2Handlers(secrets, host.clock)),
        (kv1_pb2, "KvV1Service", KvV1Handlers(secrets, host.clock)),
        (cubbyhole_pb2, "CubbyholeService", CubbyholeHandlers(secrets, host.clock)),
        (cubbyhole_pb2, "KvLifecycleService", LifecycleHandlers(secrets)),
    ):
        handlers.add(module.DESCRIPTOR.services_by_name[name], implementation)
    return KvService(handlers, GoneMarks(host.store, host.clock, secrets.drop_mount))

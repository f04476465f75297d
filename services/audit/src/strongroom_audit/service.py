"""Builds the audit service."""

from strongroom.audit.v1 import audit_pb2
from strongroom_audit.config import Config
from strongroom_audit.devices import DeviceStore
from strongroom_audit.log import AuditLog
from strongroom_audit.rpc import AuditHandlers, AuditLogHandlers
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.service import BackgroundTasks, Host


class AuditService:
    """The audit service. `log.reopen()` is for whoever rotates files."""

    def __init__(self, handlers: HandlerTable, log: AuditLog) -> None:
        self.handlers = handlers
        self.log = log
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Begins to sync files."""
        self._tasks.start(self.log.keep_synced(), "audit-sync")

    async def stop(self) -> None:
        """Writes what waits and closes the files."""
        await self._tasks.stop()
        await self.log.close()


def build(host: Host, config: Config | None = None) -> AuditService:
    """Returns the service over a store."""
    config = config or Config()
    devices = DeviceStore(host.store, config)
    log = AuditLog(devices, config, host.clock)
    handlers = HandlerTable()
    services = audit_pb2.DESCRIPTOR.services_by_name
    handlers.add(services["AuditService"], AuditHandlers(devices, log))
    handlers.add(services["AuditLogService"], AuditLogHandlers(devices, log))
    return AuditService(handlers, log)

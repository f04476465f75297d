"""Builds the audit service."""

from strongroom.audit.v1 import audit_pb2
from strongroom_audit.config import Config
from strongroom_audit.devices import DeviceStore
from strongroom_audit.keys import SigningKeys
from strongroom_audit.log import AuditLog
from strongroom_audit.register import ChainRegister
from strongroom_audit.rpc import AuditChainHandlers, AuditHandlers, AuditLogHandlers
from strongroom_runtime.handlers import HandlerTable
from strongroom_runtime.service import BackgroundTasks, Host


class AuditService:
    """The audit service. `log.reopen()` is for whoever rotates files."""

    def __init__(self, handlers: HandlerTable, log: AuditLog, keys: SigningKeys) -> None:
        self.handlers = handlers
        self.log = log
        self._keys = keys
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Takes the key that seals, and begins to seal and sync files.

        Raises:
            ServiceError: UNAVAILABLE; there is no key.
        """
        await self._keys.refresh()
        self._tasks.start(self.log.keep_sealed(), "audit-seal")
        self._tasks.start(self.log.keep_synced(), "audit-sync")

    async def stop(self) -> None:
        """Writes what waits, ends the chains and closes the files."""
        await self._tasks.stop()
        await self.log.close()
        self._keys.forget()


def build(host: Host, config: Config) -> AuditService:
    """Returns the service over a store."""
    devices = DeviceStore(host.store, config)
    keys = SigningKeys(host.store, config, host.clock)
    register = ChainRegister(host.store, config)
    log = AuditLog(devices, config, host.clock, keys, register)
    handlers = HandlerTable()
    services = audit_pb2.DESCRIPTOR.services_by_name
    handlers.add(services["AuditService"], AuditHandlers(devices, log))
    handlers.add(services["AuditChainService"], AuditChainHandlers(keys, register, host.clock))
    handlers.add(services["AuditLogService"], AuditLogHandlers(devices, log))
    return AuditService(handlers, log, keys)

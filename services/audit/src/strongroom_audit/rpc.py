"""AuditService, AuditChainService and AuditLogService: the contract to and from the log."""

import msgspec

from strongroom.audit.v1 import audit_pb2 as pb
from strongroom_audit.devices import Device, DeviceStore
from strongroom_audit.domain.keys import Certificate
from strongroom_audit.keys import SigningKeys
from strongroom_audit.log import AuditLog
from strongroom_audit.register import ChainRecord, ChainRegister
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import check_length
from strongroom_runtime.timestamps import rfc3339

# All devices are one record, which is in the memory of every gateway.
_MOST_PATH_CHARACTERS, _MOST_DESCRIPTION_CHARACTERS = 512, 4_096


class AuditHandlers:
    """Answers operators."""

    def __init__(self, devices: DeviceStore, log: AuditLog) -> None:
        self._devices = devices
        self._log = log

    async def ListDevices(
        self, request: pb.ListDevicesRequest, context: RequestContext
    ) -> pb.ListDevicesResponse:
        devices, _, _ = await self._devices.all()
        return pb.ListDevicesResponse(
            devices={path: _message(path, device) for path, device in devices.items()}
        )

    async def EnableDevice(
        self, request: pb.EnableDeviceRequest, context: RequestContext
    ) -> pb.EnableDeviceResponse:
        check_length("path", request.path, _MOST_PATH_CHARACTERS)
        check_length("description", request.description, _MOST_DESCRIPTION_CHARACTERS)
        device = self._devices.new(
            request.type, dict(request.options), request.description, local=request.local
        )
        self._log.try_open(self._devices.file(device))
        await self._devices.enable(_clean(request.path), device)
        return pb.EnableDeviceResponse()

    async def DisableDevice(
        self, request: pb.DisableDeviceRequest, context: RequestContext
    ) -> pb.DisableDeviceResponse:
        await self._devices.disable(_clean(request.path))
        return pb.DisableDeviceResponse()

    async def HashInput(
        self, request: pb.HashInputRequest, context: RequestContext
    ) -> pb.HashInputResponse:
        devices, _, _ = await self._devices.all()
        device = devices.get(_clean(request.path))
        if device is None:
            raise invalid("path: unknown audit backend: no such device is enabled")
        return pb.HashInputResponse(hash=device.hash(request.input))


class AuditChainHandlers:
    """Answers auditors."""

    def __init__(self, keys: SigningKeys, register: ChainRegister, clock: Clock) -> None:
        self._keys = keys
        self._register = register
        self._clock = clock

    async def ReadChains(
        self, request: pb.ReadChainsRequest, context: RequestContext
    ) -> pb.ReadChainsResponse:
        # The register first: no chain of it is then sealed by a key that is not there.
        chains, numbered = await self._register.all()
        keys = await self._keys.public_keys()
        return pb.ReadChainsResponse(
            keys=[_public_key(key.public, key.certificate) for key in keys],
            chains=[_chain(each) for each in chains],
            numbered=numbered,
            time=rfc3339(self._clock.now()),
        )

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: RequestContext
    ) -> pb.RotateKeyResponse:
        key = await self._keys.rotate()
        return pb.RotateKeyResponse(key=_public_key(key.public, key.certificate))


class AuditLogHandlers:
    """Answers the gateway."""

    def __init__(self, devices: DeviceStore, log: AuditLog) -> None:
        self._devices = devices
        self._log = log

    async def ResolveDevices(
        self, request: pb.ResolveDevicesRequest, context: RequestContext
    ) -> pb.ResolveDevicesResponse:
        devices, dependencies, as_of = await self._devices.all(linearizable=request.linearizable)
        return pb.ResolveDevicesResponse(
            devices=[
                pb.SaltedDevice(path=path, salt=device.salt, plain_accessors=device.plain_accessors)
                for path, device in devices.items()
            ],
            dependencies=dependencies,
            as_of=as_of,
        )

    async def Append(self, request: pb.AppendRequest, context: RequestContext) -> pb.AppendResponse:
        await self._log.append([(entry.device, entry.json) for entry in request.entries])
        return pb.AppendResponse()


def _message(path: str, device: Device) -> pb.Device:
    # Those of an earlier version were not kept.
    sync = {"sync": "always"} if device.sync_always else {}
    return pb.Device(
        type=device.type,
        description=device.description,
        options=device.options or {"file_path": device.file, **sync},
        local=device.local,
        path=path,
    )


def _public_key(public: str, certificate: Certificate) -> pb.PublicKey:
    return pb.PublicKey(public_key=public, **msgspec.structs.asdict(certificate))


def _chain(record: ChainRecord) -> pb.Chain:
    return pb.Chain(**msgspec.structs.asdict(record))


def _clean(path: str) -> str:
    path = path.strip("/")
    if not path:
        raise invalid("path: must not be empty")
    return path + "/"

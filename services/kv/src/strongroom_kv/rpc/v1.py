"""KvV1Service: secrets without versions."""

import msgspec

from strongroom.kv.v1 import kv1_pb2 as pb
from strongroom_kv.domain import documents, versions
from strongroom_kv.domain.versions import Secret
from strongroom_kv.rpc.common import folder_path, secret_path
from strongroom_kv.storage import Change, Secrets
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.durations import parse_exact_seconds
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import check_right, mount_of, page


class _Ttl(msgspec.Struct):
    ttl: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    lease: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class KvV1Handlers:
    """Answers requests to mounts of version 1."""

    def __init__(self, secrets: Secrets, clock: Clock) -> None:
        self._secrets = secrets
        self._clock = clock

    async def ReadValue(
        self, request: pb.ReadValueRequest, context: RequestContext
    ) -> pb.ReadValueResponse:
        mount, path = mount_of(context), secret_path(request.path)
        secret = await self._secrets.read(mount.uuid, path, linearizable=context.linearizable)
        if secret is None:
            raise not_found()
        document = await self._secrets.document(
            mount.uuid, path, secret.current, linearizable=context.linearizable
        )
        if document is None:  # removed since the record was read
            raise not_found()
        return pb.ReadValueResponse(
            data=document.value, lease_duration=_ttl(document.value, mount.default_lease_ttl)
        )

    async def WriteValue(
        self, request: pb.WriteValueRequest, context: RequestContext
    ) -> pb.WriteValueResponse:
        if not request.data or request.data in (b"null", b"{}"):
            raise invalid("missing data fields")
        documents.check(request.data)

        async def decide(before: Secret | None) -> Change:
            check_right(context, before is not None)
            _check_unversioned(before)
            after = versions.overwrite(before, self._clock.now())
            return Change(after, {after.current: request.data})

        await self._secrets.change(mount_of(context).uuid, secret_path(request.path), decide)
        return pb.WriteValueResponse()

    async def DeleteValue(
        self, request: pb.DeleteValueRequest, context: RequestContext
    ) -> pb.DeleteValueResponse:
        async def decide(before: Secret | None) -> Change | None:
            _check_unversioned(before)
            return None if before is None else Change(None)

        await self._secrets.change(mount_of(context).uuid, secret_path(request.path), decide)
        return pb.DeleteValueResponse()

    async def ListValues(
        self, request: pb.ListValuesRequest, context: RequestContext
    ) -> pb.ListValuesResponse:
        names = await self._secrets.names(mount_of(context).uuid, folder_path(request.path))
        return pb.ListValuesResponse(keys=page(names, request.after, request.limit))

    async def ScanValues(
        self, request: pb.ScanValuesRequest, context: RequestContext
    ) -> pb.ScanValuesResponse:
        names = sorted(await self._secrets.below(mount_of(context).uuid, folder_path(request.path)))
        return pb.ScanValuesResponse(keys=page(names, request.after, request.limit))


def _check_unversioned(secret: Secret | None) -> None:
    """Raises where the mount was upgraded since the request came in, and its secret has versions by now.

    Raises:
        ServiceError: CONFLICT.
    """
    if secret is not None and secret.current != 1:
        raise ServiceError(Kind.CONFLICT, "the mount was upgraded to version 2")


def _ttl(document: bytes, default: int) -> int:
    """Returns the document's own `ttl` (or, without one, `lease`, as of old), in whole seconds, where it is a time.

    An empty one is none, as in OpenBao, and so is a part of a second.
    """
    fields = msgspec.json.decode(document, type=_Ttl)
    raw = fields.lease if fields.ttl is msgspec.UNSET else fields.ttl
    if raw is msgspec.UNSET:
        return default
    value = msgspec.json.decode(raw)
    if value is None or value == "":
        return 0
    if not isinstance(value, str | int) or isinstance(value, bool):
        return default
    try:
        return int(parse_exact_seconds(value))
    except ValueError:
        return default

"""CubbyholeService and KvLifecycleService."""

from strongroom.kv.v1 import cubbyhole_pb2 as pb
from strongroom_kv.domain import documents
from strongroom_kv.domain.versions import Secret, overwrite
from strongroom_kv.rpc.common import folder_path, secret_path
from strongroom_kv.storage import Change, Secrets
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid, not_found
from strongroom_runtime.requests import check_right, page

_PREFIX = "cubbyhole-"
_PAGE = 100


def _space(context: RequestContext) -> str:
    """Returns the name under which a token's documents are kept: a mount of its own, as it were."""
    if context.token is None:
        raise invalid("cubbyhole operations need a token")
    return _PREFIX + context.token.id


class CubbyholeHandlers:
    """Answers requests to the cubbyhole."""

    def __init__(self, secrets: Secrets, clock: Clock) -> None:
        self._secrets = secrets
        self._clock = clock

    async def ReadCubbyhole(
        self, request: pb.ReadCubbyholeRequest, context: RequestContext
    ) -> pb.ReadCubbyholeResponse:
        space, path = _space(context), secret_path(request.path)
        document = await self._secrets.document(space, path, 1)
        if document is None:
            raise not_found()
        return pb.ReadCubbyholeResponse(data=document.value)

    async def WriteCubbyhole(
        self, request: pb.WriteCubbyholeRequest, context: RequestContext
    ) -> pb.WriteCubbyholeResponse:
        if not request.data or request.data in (b"null", b"{}"):
            raise invalid("missing data fields")
        documents.check(request.data)

        async def decide(before: Secret | None) -> Change:
            check_right(context, before is not None)
            return Change(overwrite(before, self._clock.now()), {1: request.data})

        await self._secrets.change(_space(context), secret_path(request.path), decide)
        return pb.WriteCubbyholeResponse()

    async def DeleteCubbyhole(
        self, request: pb.DeleteCubbyholeRequest, context: RequestContext
    ) -> pb.DeleteCubbyholeResponse:
        async def decide(before: Secret | None) -> Change | None:
            return None if before is None else Change(None)

        await self._secrets.change(_space(context), secret_path(request.path), decide)
        return pb.DeleteCubbyholeResponse()

    async def ListCubbyhole(
        self, request: pb.ListCubbyholeRequest, context: RequestContext
    ) -> pb.ListCubbyholeResponse:
        names = await self._secrets.names(_space(context), folder_path(request.path))
        return pb.ListCubbyholeResponse(keys=page(names, request.after, request.limit))


class LifecycleHandlers:
    """Answers the services that take mounts and tokens away."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def DropMount(
        self, request: pb.DropMountRequest, context: RequestContext
    ) -> pb.DropMountResponse:
        await self._secrets.drop_mount(_named(request.mount_uuid, "mount_uuid"))
        return pb.DropMountResponse()

    async def DropTokenData(
        self, request: pb.DropTokenDataRequest, context: RequestContext
    ) -> pb.DropTokenDataResponse:
        await self._secrets.clear(_PREFIX + _named(request.token_id, "token_id"))
        return pb.DropTokenDataResponse()

    async def ListTokensWithData(
        self, request: pb.ListTokensWithDataRequest, context: RequestContext
    ) -> pb.ListTokensWithDataResponse:
        spaces = await self._secrets.spaces(_PREFIX + request.after, _PAGE)
        token_ids = [each.removeprefix(_PREFIX) for each in spaces if each.startswith(_PREFIX)]
        return pb.ListTokensWithDataResponse(token_ids=token_ids)


def _named(value: str, field: str) -> str:
    if not value:
        raise invalid(f"{field}: must not be empty")
    return value

"""PluginService: what can be mounted, in the words of Vault's plugin catalog."""

from strongroom.sys.v1 import plugins_pb2 as pb
from strongroom_gateway.mounts.engines import DATABASES, LOGINS, SECRETS
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, not_found
from strongroom_runtime.version import VERSION

CATALOG: dict[str, list[str]] = {
    "auth": sorted(LOGINS),
    "database": sorted(DATABASES),
    "secret": sorted(SECRETS),
}


class PluginHandlers:
    """Answers requests to sys/plugins/catalog."""

    async def ReadCatalog(
        self, request: pb.ReadCatalogRequest, context: RequestContext
    ) -> pb.ReadCatalogResponse:
        detailed = [
            pb.Plugin(
                type=kind, name=name, version=VERSION, builtin=True, deprecation_status="supported"
            )
            for kind, names in CATALOG.items()
            for name in names
        ]
        return pb.ReadCatalogResponse(**CATALOG, detailed=detailed)

    async def ListPlugins(
        self, request: pb.ListPluginsRequest, context: RequestContext
    ) -> pb.ListPluginsResponse:
        if request.type not in CATALOG:
            raise ServiceError(Kind.UNSUPPORTED, "unsupported operation")
        return pb.ListPluginsResponse(keys=CATALOG[request.type])

    async def ReadPlugin(
        self, request: pb.ReadPluginRequest, context: RequestContext
    ) -> pb.ReadPluginResponse:
        if request.name not in CATALOG.get(request.type, ()):
            raise not_found()
        return pb.ReadPluginResponse(
            name=request.name, version=VERSION, builtin=True, deprecation_status="supported"
        )

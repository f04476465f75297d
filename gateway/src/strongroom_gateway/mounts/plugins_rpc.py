"""PluginService: what can be mounted, in the words of Vault's plugin catalog."""

from strongroom.sys.v1 import plugins_pb2 as pb
from strongroom_gateway.mounts.engines import DATABASES, LOGINS, SECRETS
from strongroom_gateway.mounts.table import ACTIVE, MountTable
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.version import version

CATALOG: dict[str, list[str]] = {
    "auth": sorted(LOGINS),
    "database": sorted(DATABASES),
    "secret": sorted(SECRETS),
}


class PluginHandlers:
    """Answers requests to sys/plugins.

    Args:
        mounts: what is mounted.
    """

    def __init__(self, mounts: MountTable) -> None:
        self._mounts = mounts

    async def ReadCatalog(
        self, request: pb.ReadCatalogRequest, context: RequestContext
    ) -> pb.ReadCatalogResponse:
        detailed = [
            pb.Plugin(
                type=kind,
                name=name,
                version=version(),
                builtin=True,
                deprecation_status="supported",
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
            name=request.name, version=version(), builtin=True, deprecation_status="supported"
        )

    async def ReloadPlugin(
        self, request: pb.ReloadPluginRequest, context: RequestContext
    ) -> pb.ReloadPluginResponse:
        if request.scope not in ("", "global"):
            raise invalid("scope: must be unset or global")
        if bool(request.plugin) == bool(request.mounts):
            raise invalid("plugin, mounts: one of them must be given, and not both")
        if request.plugin and request.plugin not in (*LOGINS, *SECRETS):
            raise invalid(
                "plugin: must be a login method or a secret engine of sys/plugins/catalog"
            )
        mounts = (await self._mounts.current()).mounts
        for path in request.mounts:
            mount = mounts.get(path.strip("/") + "/")
            if mount is None or mount.state != ACTIVE or mount.type not in (*LOGINS, *SECRETS):
                raise invalid("mounts: one of them is not there, or cannot be reloaded")
        return pb.ReloadPluginResponse(reload_id=context.request_id)

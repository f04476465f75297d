"""What can be mounted, as a catalog."""

import pytest

from strongroom.sys.v1 import plugins_pb2 as pb
from strongroom_dbcreds.drivers import PLUGINS
from strongroom_gateway.mounts.engines import DATABASES
from strongroom_gateway.mounts.plugins_rpc import PluginHandlers
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError

CONTEXT = RequestContext("r")


def test_every_driver_is_in_the_catalog() -> None:
    assert set(DATABASES) == set(PLUGINS)


async def test_everything_is_listed_and_described() -> None:
    handlers = PluginHandlers()
    catalog = await handlers.ReadCatalog(pb.ReadCatalogRequest(), CONTEXT)
    assert "userpass" in catalog.auth
    assert "kv" in catalog.secret
    assert {(p.type, p.name) for p in catalog.detailed} >= {("auth", "approle"), ("secret", "kv")}
    for plugin in catalog.detailed:
        asked = pb.ReadPluginRequest(type=plugin.type, name=plugin.name)
        assert (await handlers.ReadPlugin(asked, CONTEXT)).builtin
        listed = await handlers.ListPlugins(pb.ListPluginsRequest(type=plugin.type), CONTEXT)
        assert plugin.name in listed.keys


async def test_what_is_not_there_is_said() -> None:
    handlers = PluginHandlers()
    with pytest.raises(ServiceError) as caught:
        await handlers.ReadPlugin(pb.ReadPluginRequest(type="secret", name="nope"), CONTEXT)
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(ServiceError) as caught:
        await handlers.ListPlugins(pb.ListPluginsRequest(type="nope"), CONTEXT)
    assert caught.value.kind is Kind.UNSUPPORTED

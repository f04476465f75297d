"""What can be mounted, as a catalog."""

from typing import Any

import pytest
from tests.fakes.store import MemoryStore

from strongroom.sys.v1 import plugins_pb2 as pb
from strongroom_dbcreds.drivers import PLUGINS
from strongroom_gateway.mounts.engines import DATABASES
from strongroom_gateway.mounts.plugins_rpc import PluginHandlers
from strongroom_gateway.mounts.table import MountTable, new_mount
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError

CONTEXT = RequestContext("r")


def test_every_driver_is_in_the_catalog() -> None:
    assert set(DATABASES) == set(PLUGINS)


async def test_everything_is_listed_and_described() -> None:
    handlers = PluginHandlers(MountTable(MemoryStore()))
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
    handlers = PluginHandlers(MountTable(MemoryStore()))
    with pytest.raises(ServiceError) as caught:
        await handlers.ReadPlugin(pb.ReadPluginRequest(type="secret", name="nope"), CONTEXT)
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(ServiceError) as caught:
        await handlers.ListPlugins(pb.ListPluginsRequest(type="nope"), CONTEXT)
    assert caught.value.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"mounts": ["keys/", "auth/people"]}, ""),
        ({"plugin": "transit", "scope": "global"}, ""),
        ({}, "plugin, mounts"),
        ({"plugin": "transit", "mounts": ["keys/"]}, "plugin, mounts"),
        ({"plugin": "transit", "scope": "node"}, "scope"),
        ({"plugin": "postgresql-database-plugin"}, "plugin"),
        ({"mounts": ["keys/", "absent/"]}, "mounts"),
        ({"mounts": ["sys/"]}, "mounts"),
    ],
)
async def test_what_is_to_be_reloaded_must_be_there(asked: dict[str, Any], wrong: str) -> None:
    table = MountTable(MemoryStore())
    made = [new_mount("keys/", "transit"), new_mount("auth/people/", "userpass")]
    await table.change(lambda mounts: {**mounts, **{mount.path: mount for mount in made}})
    call = PluginHandlers(table).ReloadPlugin(pb.ReloadPluginRequest(**asked), CONTEXT)
    if not wrong:
        assert (await call).reload_id == "r"
        return
    with pytest.raises(ServiceError) as caught:
        await call
    assert (caught.value.kind, caught.value.message[: len(wrong)]) == (Kind.INVALID, wrong)

"""KeyService: named keys. TransitLifecycleService: what happens when a mount goes."""

from collections.abc import Callable

import msgspec

from strongroom.transit.v1 import key_pb2 as pb
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import mount_of, page
from strongroom_transit.creation import Maker, new_key
from strongroom_transit.domain.keys import Key, Settings, configured
from strongroom_transit.domain.kinds import type_named
from strongroom_transit.rpc.common import found_key, key_message, named_key
from strongroom_transit.storage import Change, Keys, MountConfig

_SETTINGS = {
    "min_decryption_version": "min_decryption",
    "min_encryption_version": "min_encryption",
    "deletion_allowed": "deletion_allowed",
    "exportable": "exportable",
    "allow_plaintext_backup": "backup_allowed",
    "auto_rotate_period": "rotate_period",
}


class KeyHandlers:
    """Answers requests to keys/ and to the mount's settings."""

    def __init__(self, keys: Keys, maker: Maker, clock: Clock) -> None:
        self._keys = keys
        self._maker = maker
        self._clock = clock

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: RequestContext
    ) -> pb.CreateKeyResponse:
        mount = mount_of(context).uuid
        kind = type_named(request.type, request.parameter_set)
        wanted = msgspec.structs.replace(
            new_key(kind),
            derived=request.derived,
            convergent=request.convergent_encryption,
            exportable=request.exportable,
            backup_allowed=request.allow_plaintext_backup,
            rotate_period=request.auto_rotate_period,
            key_size=request.key_size,
        )
        key, made = await self._maker.create(mount, request.name, wanted)
        warnings = [] if made else ["the key existed already; nothing about it was changed"]
        return pb.CreateKeyResponse(
            key=await self._info(mount, request.name, key), warnings=warnings
        )

    async def ReadKey(
        self, request: pb.ReadKeyRequest, context: RequestContext
    ) -> pb.ReadKeyResponse:
        mount = mount_of(context).uuid
        key = await self._keys.get(mount, request.name, linearizable=context.linearizable)
        info = await self._info(mount, request.name, found_key(key), request.context)
        return pb.ReadKeyResponse(key=info)

    async def ListKeys(
        self, request: pb.ListKeysRequest, context: RequestContext
    ) -> pb.ListKeysResponse:
        names = await self._keys.names(mount_of(context).uuid)
        return pb.ListKeysResponse(keys=page(names, request.after, request.limit))

    async def DeleteKey(
        self, request: pb.DeleteKeyRequest, context: RequestContext
    ) -> pb.DeleteKeyResponse:
        async def decide(before: Key | None) -> Change:
            if before is None:
                raise invalid("could not delete key; not found")
            if not before.deletion_allowed:
                raise invalid("deletion is not allowed for this key")
            return Change(None)

        await self._keys.change(mount_of(context).uuid, request.name, decide)
        return pb.DeleteKeyResponse()

    async def ConfigureKey(
        self, request: pb.ConfigureKeyRequest, context: RequestContext
    ) -> pb.ConfigureKeyResponse:
        given = {
            attribute: getattr(request, field)
            for field, attribute in _SETTINGS.items()
            if request.HasField(field)  # type: ignore[arg-type]
        }

        def change(key: Key) -> Key:
            return configured(key, Settings(**given), self._clock.now())

        return pb.ConfigureKeyResponse(key=await self._changed(context, request.name, change))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: RequestContext
    ) -> pb.RotateKeyResponse:
        mount = mount_of(context).uuid
        key = named_key(await self._maker.rotate(mount, request.name))
        return pb.RotateKeyResponse(key=await self._info(mount, request.name, key))

    async def TrimKey(
        self, request: pb.TrimKeyRequest, context: RequestContext
    ) -> pb.TrimKeyResponse:
        mount, first = mount_of(context).uuid, request.min_available_version
        info = await self._changed(context, request.name, lambda key: key.trimmed(first))
        key = await self._keys.get(mount, request.name)
        if key is not None:
            await self._keys.trim(mount, key, key.min_available)
        return pb.TrimKeyResponse(key=info)

    async def SoftDeleteKey(
        self, request: pb.SoftDeleteKeyRequest, context: RequestContext
    ) -> pb.SoftDeleteKeyResponse:
        info = await self._changed(
            context, request.name, lambda key: msgspec.structs.replace(key, soft_deleted=True)
        )
        return pb.SoftDeleteKeyResponse(key=info)

    async def RestoreSoftDeletedKey(
        self, request: pb.RestoreSoftDeletedKeyRequest, context: RequestContext
    ) -> pb.RestoreSoftDeletedKeyResponse:
        info = await self._changed(
            context, request.name, lambda key: msgspec.structs.replace(key, soft_deleted=False)
        )
        return pb.RestoreSoftDeletedKeyResponse(key=info)

    async def ReadKeysConfig(
        self, request: pb.ReadKeysConfigRequest, context: RequestContext
    ) -> pb.ReadKeysConfigResponse:
        config = await self._keys.config(mount_of(context).uuid)
        return pb.ReadKeysConfigResponse(disable_upsert=config.disable_upsert)

    async def WriteKeysConfig(
        self, request: pb.WriteKeysConfigRequest, context: RequestContext
    ) -> pb.WriteKeysConfigResponse:
        def change(before: MountConfig) -> MountConfig:
            return msgspec.structs.replace(before, disable_upsert=request.disable_upsert)

        config = await self._keys.change_config(mount_of(context).uuid, change)
        return pb.WriteKeysConfigResponse(disable_upsert=config.disable_upsert)

    async def ReadCacheConfig(
        self, request: pb.ReadCacheConfigRequest, context: RequestContext
    ) -> pb.ReadCacheConfigResponse:
        config = await self._keys.config(mount_of(context).uuid)
        return pb.ReadCacheConfigResponse(size=config.cache_size)

    async def WriteCacheConfig(
        self, request: pb.WriteCacheConfigRequest, context: RequestContext
    ) -> pb.WriteCacheConfigResponse:
        if request.size < 0 or 0 < request.size < 10:
            raise invalid("size must be 0 or a value greater or equal to 10")

        def change(before: MountConfig) -> MountConfig:
            return msgspec.structs.replace(before, cache_size=request.size)

        config = await self._keys.change_config(mount_of(context).uuid, change)
        return pb.WriteCacheConfigResponse(size=config.cache_size)

    async def _changed(
        self, context: RequestContext, name: str, change: Callable[[Key], Key]
    ) -> pb.KeyInfo:
        mount = mount_of(context).uuid

        async def decide(before: Key | None) -> Change | None:
            return Change(change(named_key(before)))

        key = named_key(await self._keys.change(mount, name, decide))
        return await self._info(mount, name, key)

    async def _info(self, mount: str, name: str, key: Key, context: bytes = b"") -> pb.KeyInfo:
        versions = await self._keys.all_versions(mount, key, key.min_decryption)
        return key_message(name, key, versions, context)


class LifecycleHandlers:
    """Answers the gateway when it takes a mount away."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def DropMount(
        self, request: pb.DropMountRequest, context: RequestContext
    ) -> pb.DropMountResponse:
        if not request.mount_uuid:
            raise invalid("mount_uuid: must not be empty")
        await self._keys.drop_mount(request.mount_uuid)
        return pb.DropMountResponse()

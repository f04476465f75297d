"""KvV2Service: versioned secrets."""

from collections.abc import AsyncIterator
from functools import partial

import msgspec

from strongroom.kv.v1 import kv2_pb2 as pb
from strongroom_kv.domain import documents, versions
from strongroom_kv.domain.versions import MountConfig, Secret, Version
from strongroom_kv.rpc.common import folder_path, secret_path
from strongroom_kv.rpc.metadata import (
    MetadataSettings,
    change_message,
    secret_message,
    version_json,
    version_message,
)
from strongroom_kv.storage import MOST_REMOVED, Change, Decide, Secrets, secret_in
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import check_right, mount_of, page
from strongroom_runtime.storage import Entry


class KvV2Handlers:
    """Answers requests to mounts of version 2."""

    def __init__(self, secrets: Secrets, clock: Clock) -> None:
        self._secrets = secrets
        self._clock = clock

    async def ReadConfig(
        self, request: pb.ReadConfigRequest, context: RequestContext
    ) -> pb.ReadConfigResponse:
        config = await self._secrets.config(mount_of(context).uuid)
        return pb.ReadConfigResponse(
            max_versions=config.max_versions,
            cas_required=config.cas_required,
            delete_version_after=config.delete_after,
            metadata_cas_required=config.metadata_cas_required,
        )

    async def WriteConfig(
        self, request: pb.WriteConfigRequest, context: RequestContext
    ) -> pb.WriteConfigResponse:
        settings = MetadataSettings.of(request)

        def change(before: MountConfig) -> MountConfig:
            return msgspec.structs.replace(before, **settings.fields())

        await self._secrets.change_config(mount_of(context).uuid, change)
        return pb.WriteConfigResponse()

    async def ReadSecret(
        self, request: pb.ReadSecretRequest, context: RequestContext
    ) -> pb.ReadSecretResponse:
        mount, path = mount_of(context).uuid, secret_path(request.path)
        secret, number, version = await self._version(mount, path, request.version, context)
        document = await self._document(mount, path, number, context)
        kept: tuple[Secret, pb.ReadSecretResponse] | None = document.made
        if kept is None or kept[0] is not secret:
            metadata = version_message(secret, number, version)
            kept = document.made = (
                secret,
                pb.ReadSecretResponse(data=document.value, metadata=metadata),
            )
        return kept[1]

    async def WriteSecret(
        self, request: pb.WriteSecretRequest, context: RequestContext
    ) -> pb.WriteSecretResponse:
        if not request.data or request.data == b"null":
            raise invalid("no data provided")
        documents.check(request.data)
        mount, path = mount_of(context).uuid, secret_path(request.path)
        config = await self._secrets.config(mount)
        cas = request.options.cas if request.options.HasField("cas") else None
        written: list[Secret] = []

        async def decide(before: Secret | None) -> Change:
            check_right(context, before is not None)
            versions.check_cas(before, config, cas)
            after, pruned = versions.add(before, config, self._clock.now())
            written[:] = [after]
            return Change(after, {after.current: request.data}, pruned)

        await self._secrets.change(mount, path, decide)
        return pb.WriteSecretResponse(metadata=_current(written[0]))

    async def PatchSecret(
        self, request: pb.PatchSecretRequest, context: RequestContext
    ) -> pb.PatchSecretResponse:
        if not request.data or request.data == b"null":
            raise invalid("no data provided")
        mount, path = mount_of(context).uuid, secret_path(request.path)
        config = await self._secrets.config(mount)
        cas = request.options.cas if request.options.HasField("cas") else None
        written: list[Secret] = []

        async def decide(before: Secret | None) -> Change:
            if before is not None:  # else it is not found, whatever was expected
                versions.check_cas(before, config, cas)
            now = self._clock.now()
            secret, number, _ = _find(before, 0, now)
            # A version's document never changes; were the secret removed meanwhile, the write would conflict.
            document = await self._secrets.document(mount, path, number)
            merged = documents.merge(document.value if document else b"{}", request.data)
            after, pruned = versions.add(secret, config, now)
            written[:] = [after]
            return Change(after, {after.current: merged}, pruned)

        await self._secrets.change(mount, path, decide)
        return pb.PatchSecretResponse(metadata=_current(written[0]))

    async def DeleteLatest(
        self, request: pb.DeleteLatestRequest, context: RequestContext
    ) -> pb.DeleteLatestResponse:
        if request.version:
            raise invalid(
                "version: the latest is deleted in this way; name others as versions at delete/"
            )

        async def decide(before: Secret | None) -> Change | None:
            if before is None:
                return None
            return _unless_same(
                before, versions.delete(before, [before.current], self._clock.now())
            )

        await self._change(request.path, context, decide)
        return pb.DeleteLatestResponse()

    async def DeleteVersions(
        self, request: pb.DeleteVersionsRequest, context: RequestContext
    ) -> pb.DeleteVersionsResponse:
        numbers = _numbers(list(request.versions))

        async def decide(before: Secret | None) -> Change | None:
            if before is None:
                return None
            return _unless_same(before, versions.delete(before, numbers, self._clock.now()))

        await self._change(request.path, context, decide)
        return pb.DeleteVersionsResponse()

    async def UndeleteVersions(
        self, request: pb.UndeleteVersionsRequest, context: RequestContext
    ) -> pb.UndeleteVersionsResponse:
        numbers = _numbers(list(request.versions))
        config = await self._secrets.config(mount_of(context).uuid)

        async def decide(before: Secret | None) -> Change | None:
            if before is None:
                return None
            now = self._clock.now()
            return _unless_same(before, versions.undelete(before, numbers, config, now))

        await self._change(request.path, context, decide)
        return pb.UndeleteVersionsResponse()

    async def DestroyVersions(
        self, request: pb.DestroyVersionsRequest, context: RequestContext
    ) -> pb.DestroyVersionsResponse:
        numbers = _numbers(list(request.versions))
        # Each goes with its document: what is called destroyed is.
        for begin in range(0, len(numbers), MOST_REMOVED):
            doomed = numbers[begin : begin + MOST_REMOVED]
            await self._change(request.path, context, partial(self._destroyed, doomed))
        return pb.DestroyVersionsResponse()

    async def _destroyed(self, numbers: list[int], before: Secret | None) -> Change | None:
        if before is None:
            return None
        after, removed = versions.destroy(before, numbers, self._clock.now())
        return Change(after, removed=removed) if removed else None

    async def ReadMetadata(
        self, request: pb.ReadMetadataRequest, context: RequestContext
    ) -> pb.ReadMetadataResponse:
        secret = await self._secrets.read(
            mount_of(context).uuid,
            secret_path(request.path),
            linearizable=context.linearizable,
        )
        if secret is None:
            raise not_found()
        return pb.ReadMetadataResponse(metadata=secret_message(secret))

    async def WriteMetadata(
        self, request: pb.WriteMetadataRequest, context: RequestContext
    ) -> pb.WriteMetadataResponse:
        settings = MetadataSettings.of(request)
        return pb.WriteMetadataResponse(warnings=await self._settle(request, context, settings))

    async def PatchMetadata(
        self, request: pb.PatchMetadataRequest, context: RequestContext
    ) -> pb.PatchMetadataResponse:
        settings = MetadataSettings.of(request, merge=True)
        return pb.PatchMetadataResponse(warnings=await self._settle(request, context, settings))

    async def DeleteMetadata(
        self, request: pb.DeleteMetadataRequest, context: RequestContext
    ) -> pb.DeleteMetadataResponse:
        async def decide(before: Secret | None) -> Change | None:
            return None if before is None else Change(None)

        await self._change(request.path, context, decide)
        return pb.DeleteMetadataResponse()

    async def ListSecrets(
        self, request: pb.ListSecretsRequest, context: RequestContext
    ) -> pb.ListSecretsResponse:
        names = await self._secrets.names(mount_of(context).uuid, folder_path(request.path))
        return pb.ListSecretsResponse(keys=page(names, request.after, request.limit))

    async def WatchSecrets(
        self, request: pb.WatchSecretsRequest, context: RequestContext
    ) -> AsyncIterator[pb.WatchSecretsResponse]:
        if request.from_revision < 0:
            raise invalid("from_revision: must not be negative")
        mount, folder = mount_of(context).uuid, folder_path(request.path)
        start = request.from_revision or await self._secrets.revision() + 1
        yield pb.WatchSecretsResponse(revision=start - 1)
        async for revision, secrets in self._secrets.watch(mount, folder, start):
            yield pb.WatchSecretsResponse(
                revision=revision,
                changes=[change_message(path, secret) for path, secret in secrets.items()],
            )

    async def ScanSecrets(
        self, request: pb.ScanSecretsRequest, context: RequestContext
    ) -> pb.ScanSecretsResponse:
        found = await self._secrets.below(mount_of(context).uuid, folder_path(request.path))
        return pb.ScanSecretsResponse(keys=page(sorted(found), request.after, request.limit))

    async def ListDetailed(
        self, request: pb.ListDetailedRequest, context: RequestContext
    ) -> pb.ListDetailedResponse:
        mount, folder = mount_of(context).uuid, folder_path(request.path)
        keys = page(await self._secrets.names(mount, folder), request.after, request.limit)
        response = pb.ListDetailedResponse(keys=keys)
        for name in keys:
            path = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                response.key_info[name].SetInParent()
                continue
            secret = await self._secrets.read(mount, path)
            if secret is not None:  # it may have gone since it was listed
                response.key_info[name].CopyFrom(secret_message(secret))
        return response

    async def ScanDetailed(
        self, request: pb.ScanDetailedRequest, context: RequestContext
    ) -> pb.ScanDetailedResponse:
        found = await self._secrets.below(mount_of(context).uuid, folder_path(request.path))
        keys = page(sorted(found), request.after, request.limit)
        return pb.ScanDetailedResponse(
            keys=keys, key_info={name: secret_message(secret_in(found[name])) for name in keys}
        )

    async def ReadSubkeys(
        self, request: pb.ReadSubkeysRequest, context: RequestContext
    ) -> pb.ReadSubkeysResponse:
        if request.depth < 0:
            raise invalid("depth: must not be negative")
        mount, path = mount_of(context).uuid, secret_path(request.path)
        secret, number, version = await self._version(
            mount, path, request.version, context, shown="subkeys"
        )
        document = await self._document(mount, path, number, context)
        return pb.ReadSubkeysResponse(
            subkeys=documents.subkeys(document.value, request.depth),
            metadata=version_message(secret, number, version),
        )

    async def _settle(
        self,
        request: pb.WriteMetadataRequest | pb.PatchMetadataRequest,
        context: RequestContext,
        settings: MetadataSettings,
    ) -> list[str]:
        """Changes settings of a secret; returns what a client should know."""
        patching = isinstance(request, pb.PatchMetadataRequest)
        config = await self._secrets.config(mount_of(context).uuid)
        cas = request.metadata_cas if request.HasField("metadata_cas") else None

        async def decide(before: Secret | None) -> Change | None:
            if not patching:
                check_right(context, before is not None)
            if patching and before is None:
                raise not_found()
            if settings.nothing:
                return None
            versions.check_metadata_cas(before, config, cas)
            return Change(settings.apply(before, self._clock.now()))

        await self._change(request.path, context, decide)
        return settings.warnings(config)

    async def _change(self, path: str, context: RequestContext, decide: Decide) -> None:
        await self._secrets.change(mount_of(context).uuid, secret_path(path), decide)

    async def _version(
        self, mount: str, path: str, number: int, context: RequestContext, shown: str = "data"
    ) -> tuple[Secret, int, Version]:
        if number < 0:
            raise invalid("version: must not be negative")
        secret = await self._secrets.read(mount, path, linearizable=context.linearizable)
        return _find(secret, number, self._clock.now(), shown)

    async def _document(self, mount: str, path: str, number: int, context: RequestContext) -> Entry:
        document = await self._secrets.document(
            mount, path, number, linearizable=context.linearizable
        )
        if document is None:  # destroyed or pruned since the record was read
            raise not_found()
        return document


def _find(
    secret: Secret | None, number: int, now: float, shown: str = "data"
) -> tuple[Secret, int, Version]:
    """Returns a version that can be read, the current one for 0.

    Raises:
        ServiceError: NOT_FOUND; with the version's metadata where it is deleted or destroyed.
    """
    if secret is None:
        raise not_found()
    number = number or secret.current
    version = secret.versions.get(number)
    if version is None:
        raise not_found()
    if version.gone(now):
        metadata = msgspec.Raw(version_json(secret, number, version))
        data = msgspec.json.encode({shown: None, "metadata": metadata})
        raise ServiceError(Kind.NOT_FOUND, data=data)
    return secret, number, version


def _current(secret: Secret) -> pb.VersionMetadata:
    return version_message(secret, secret.current, secret.versions[secret.current])


def _unless_same(before: Secret, after: Secret) -> Change | None:
    return None if after is before else Change(after)


def _numbers(numbers: list[int]) -> list[int]:
    if not numbers:
        raise invalid("No version number provided")
    if any(n < 1 for n in numbers):
        raise invalid("versions: must be numbers from 1")
    return numbers

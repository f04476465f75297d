"""MaterialService: key material that comes in and goes out."""

import asyncio
import base64
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization

from strongroom.transit.v1 import material_pb2 as pb
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import mount_of
from strongroom_transit.creation import new_key
from strongroom_transit.domain import certificates, transfer
from strongroom_transit.domain.backups import backup
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.kinds import Family, type_named
from strongroom_transit.domain.material import Loaded, Version
from strongroom_transit.rpc.common import found_key, key_message, named_key
from strongroom_transit.storage import Keys
from strongroom_transit.transfers import Transfers, Wrapped, check_not_retired, chosen


class MaterialHandlers:
    """Answers requests that bring keys here, and take them away."""

    def __init__(self, keys: Keys, transfers: Transfers, clock: Clock) -> None:
        self._keys = keys
        self._transfers = transfers
        self._clock = clock

    async def ReadWrappingKey(
        self, request: pb.ReadWrappingKeyRequest, context: RequestContext
    ) -> pb.ReadWrappingKeyResponse:
        own = await self._transfers.wrapping_key(mount_of(context).uuid)
        private: Any = serialization.load_der_private_key(
            own, None, unsafe_skip_rsa_key_validation=True
        )
        pem = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pb.ReadWrappingKeyResponse(public_key=pem.decode())

    async def ImportKey(
        self, request: pb.ImportKeyRequest, context: RequestContext
    ) -> pb.ImportKeyResponse:
        if request.convergent_encryption:
            raise invalid(
                "convergent_encryption: keys that encrypt convergently are not imported; restore a backup"
            )
        kind = type_named(request.type)
        key = msgspec.structs.replace(
            new_key(kind),
            imported=True,
            counter_kdf=request.derived and kind.family is Family.AEAD,
            allow_rotation=request.allow_rotation,
            derived=request.derived,
            exportable=request.exportable,
            backup_allowed=request.allow_plaintext_backup,
            rotate_period=request.auto_rotate_period,
        )
        wrapped = Wrapped(request.ciphertext, request.hash_function, request.public_key)
        await self._transfers.create(mount_of(context).uuid, request.name, key, wrapped)
        return pb.ImportKeyResponse()

    async def ImportVersion(
        self, request: pb.ImportVersionRequest, context: RequestContext
    ) -> pb.ImportVersionResponse:
        wrapped = Wrapped(request.ciphertext, request.hash_function, request.public_key)
        mount = mount_of(context).uuid
        await self._transfers.add(mount, request.name, wrapped, request.version)
        return pb.ImportVersionResponse()

    async def ExportKey(
        self, request: pb.ExportKeyRequest, context: RequestContext
    ) -> pb.ExportKeyResponse:
        key = await self._key(context, request.name)
        transfer.check_export(key, request.kind)
        versions = await self._versions(context, key, request.version)
        if request.kind == "certificate-chain":
            versions = {number: each for number, each in versions.items() if each.certificates}
            if not versions:
                raise invalid("version: has no certificate chain")
        return pb.ExportKeyResponse(
            name=request.name,
            type=key.type,
            keys={
                str(number): transfer.exported(key, version, request.kind, request.format)
                for number, version in versions.items()
            },
        )

    async def ExportWrappedKey(
        self, request: pb.ExportWrappedKeyRequest, context: RequestContext
    ) -> pb.ExportWrappedKeyResponse:
        destination = await self._key(context, request.destination, "destination")
        destination.check_usable()
        if destination.kind.family is not Family.RSA:
            raise invalid("destination: must be an RSA key")
        key = await self._key(context, request.source)
        key.check_usable()
        if not key.exportable:
            raise invalid("source: key is not exportable")
        under = await self._loaded(context, request.destination, 0)
        versions = await self._versions(context, key, request.version)
        wrapped = {
            str(number): base64.b64encode(
                transfer.wrap(under.public, transfer.material_of(key, version), request.hash)
            ).decode()
            for number, version in versions.items()
        }
        return pb.ExportWrappedKeyResponse(name=request.source, type=key.type, keys=wrapped)

    async def BackupKey(
        self, request: pb.BackupKeyRequest, context: RequestContext
    ) -> pb.BackupKeyResponse:
        key = await self._key(context, request.name)
        versions = await self._keys.all_versions(mount_of(context).uuid, key)
        text = await asyncio.to_thread(backup, request.name, key, versions, self._clock.now())
        return pb.BackupKeyResponse(backup=text)

    async def RestoreKey(
        self, request: pb.RestoreKeyRequest, context: RequestContext
    ) -> pb.RestoreKeyResponse:
        if not request.backup:
            raise invalid("backup: must be supplied")
        mount = mount_of(context).uuid
        await self._transfers.restore(mount, request.name, request.backup, force=request.force)
        return pb.RestoreKeyResponse()

    async def CreateCertificateRequest(
        self, request: pb.CreateCertificateRequestRequest, context: RequestContext
    ) -> pb.CreateCertificateRequestResponse:
        key = await self._key(context, request.name, "name")
        certificates.check_certifiable(key)
        check_not_retired(key, request.version or key.latest)
        loaded = await self._loaded(context, request.name, request.version)
        return pb.CreateCertificateRequestResponse(
            name=request.name,
            type=key.type,
            csr=certificates.request(key, loaded, request.csr),
        )

    async def SetCertificate(
        self, request: pb.SetCertificateRequest, context: RequestContext
    ) -> pb.SetCertificateResponse:
        key = await self._key(context, request.name, "name")
        certificates.check_certifiable(key)
        number, mount = request.version or key.latest, mount_of(context).uuid
        check_not_retired(key, number)

        def change(key: Key, before: Version) -> Version:
            return certificates.with_chain(before, request.certificate_chain)

        await self._keys.replace_version(mount, request.name, number, change)
        after = await self._key(context, request.name)
        versions = await self._keys.all_versions(mount, after, after.min_decryption)
        return pb.SetCertificateResponse(
            key=key_message(request.name, after, versions),
            certificate_chain=transfer.chain_pem(versions[number]) if number in versions else "",
        )

    async def DeriveKey(
        self, request: pb.DeriveKeyRequest, context: RequestContext
    ) -> pb.DeriveKeyResponse:
        if request.key_derivation_algorithm not in ("", "ecdh"):
            raise invalid("key_derivation_algorithm: takes ecdh")
        kind = type_named(request.derived_key_type)
        if kind.family is not Family.AEAD:
            raise invalid("derived_key_type: takes a type that encrypts with a symmetric key")
        for field in ("base_key_name", "peer_public_key"):
            if not getattr(request, field):
                raise invalid(f"{field}: must be given")
        base = await self._key(context, request.base_key_name, "base_key_name")
        base.check_usable()
        if base.kind.family is not Family.ECDSA:
            raise invalid("base_key_name: must name an ECDSA key")
        loaded = await self._loaded(context, request.base_key_name, request.base_key_version)
        peer = transfer.public_of_pem(request.peer_public_key, "peer_public_key")
        secret = transfer.agreed(loaded.private, peer, kind.size)
        await self._transfers.agree(mount_of(context).uuid, request.name, kind, secret)
        return pb.DeriveKeyResponse()

    async def _key(self, context: RequestContext, name: str, field: str = "") -> Key:
        """Returns a key that a request reads, or (with the field that names it) does something with."""
        mount = mount_of(context).uuid
        key = await self._keys.get(mount, name, linearizable=context.linearizable)
        return named_key(key, field) if field else found_key(key)

    async def _loaded(self, context: RequestContext, name: str, number: int) -> Loaded:
        keyset = await self._keys.keyset(mount_of(context).uuid, name, {number})
        if keyset is None or number < 0:
            raise invalid("version: there is no such key version")
        return keyset.version(number or keyset.key.latest)

    async def _versions(self, context: RequestContext, key: Key, text: str) -> dict[int, Version]:
        numbers = set(chosen(key, text))
        found = await self._keys.all_versions(mount_of(context).uuid, key, min(numbers))
        return {number: version for number, version in found.items() if number in numbers}

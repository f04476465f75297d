"""CipherService: encryption with named keys."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from strongroom.transit.v1 import cipher_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import check_right, mount_of
from strongroom_transit.config import Config
from strongroom_transit.creation import Maker, new_key
from strongroom_transit.domain import ciphers
from strongroom_transit.domain.ciphers import Encrypted
from strongroom_transit.domain.keyset import Keyset, versions_in
from strongroom_transit.domain.kinds import type_named
from strongroom_transit.rpc.common import (
    check_partial,
    outcomes,
    readable,
    run,
    status_of,
    usable,
)
from strongroom_transit.storage import Keys

_BITS = (128, 256, 512)


class CipherHandlers:
    """Answers requests to encrypt/, decrypt/, rewrap/ and datakey/.

    The handlers of Encrypt, Decrypt and Rewrap take one batch as well, as it comes in a stream.
    """

    def __init__(self, keys: Keys, maker: Maker, config: Config) -> None:
        self._keys = keys
        self._maker = maker
        self._config = config

    async def Encrypt(
        self, request: pb.EncryptRequest, context: RequestContext
    ) -> pb.EncryptResponse:
        items = request.batch_input
        if not items:
            if not request.HasField("plaintext"):
                raise invalid("missing plaintext to encrypt")
            keyset = await self._for_encryption(request, (request,), context)
            ciphertext, version = ciphers.encrypt(keyset, request)
            return pb.EncryptResponse(ciphertext=ciphertext, key_version=version)
        check_partial(request.partial_failure_response_code)
        keyset = await self._for_encryption(request, items, context)
        sealer = ciphers.Sealer(keyset, len(items))

        def encrypt(item: pb.EncryptItem) -> Encrypted:
            if not item.HasField("plaintext"):
                raise invalid("missing plaintext to encrypt")
            return sealer.encrypt(item)

        results = await run(keyset, items, readable(encrypt), self._config)
        response = pb.EncryptResponse(
            status=status_of(results, request.partial_failure_response_code)
        )
        outcomes(response.batch_results, items, results, _encrypted)
        return response

    async def Decrypt(
        self, request: pb.DecryptRequest, context: RequestContext
    ) -> pb.DecryptResponse:
        items = request.batch_input
        if not items:
            if not request.ciphertext:
                raise invalid("missing ciphertext to decrypt")
            keyset = await self._for_decryption(request.name, (request,), context)
            return pb.DecryptResponse(plaintext=ciphers.decrypt(keyset, request))
        check_partial(request.partial_failure_response_code)
        keyset = await self._for_decryption(request.name, items, context)
        decrypt = ciphers.Opener(keyset).decrypt
        results = await run(keyset, items, readable(decrypt), self._config)
        response = pb.DecryptResponse(
            status=status_of(results, request.partial_failure_response_code)
        )
        outcomes(response.batch_results, items, results, _decrypted, _not_decrypted)
        return response

    async def Rewrap(self, request: pb.RewrapRequest, context: RequestContext) -> pb.RewrapResponse:
        items = request.batch_input
        if not items:
            if not request.ciphertext:
                raise invalid("missing ciphertext to decrypt")
            keyset = await self._for_decryption(request.name, (request,), context, rewrap=True)
            opener, sealer = ciphers.Opener(keyset), ciphers.Sealer(keyset)
            ciphertext, version = ciphers.rewrap(opener, sealer, request)
            return pb.RewrapResponse(ciphertext=ciphertext, key_version=version)
        check_partial(request.partial_failure_response_code)
        keyset = await self._for_decryption(request.name, items, context, rewrap=True)
        opener, sealer = ciphers.Opener(keyset), ciphers.Sealer(keyset, len(items))

        def rewrap(item: pb.RewrapItem) -> Encrypted:
            return ciphers.rewrap(opener, sealer, item)

        results = await run(keyset, items, readable(rewrap), self._config)
        response = pb.RewrapResponse(
            status=status_of(results, request.partial_failure_response_code, 0)
        )
        outcomes(response.batch_results, items, results, _encrypted)
        return response

    async def CreateDataKey(
        self, request: pb.CreateDataKeyRequest, context: RequestContext
    ) -> pb.CreateDataKeyResponse:
        if request.kind not in ("plaintext", "wrapped"):
            raise invalid("Invalid path, must be 'plaintext' or 'wrapped'")
        bits = request.bits or 256
        if bits not in _BITS:
            raise invalid("bits: takes 128, 256 or 512")
        if request.nonce:
            raise invalid("nonce: provided when not allowed")
        keyset = await usable(self._keys, request.name, (request.key_version,), context)
        ciphers.check_encrypts(keyset)
        secret = os.urandom(bits // 8)
        ciphertext, version = ciphers.seal(
            keyset, secret, request.context, request.associated_data, request.key_version
        )
        response = pb.CreateDataKeyResponse(ciphertext=ciphertext, key_version=version)
        if request.kind == "plaintext":
            response.plaintext = secret
        return response

    async def _for_encryption(
        self, request: pb.EncryptRequest, items: Sequence[Any], context: RequestContext
    ) -> Keyset:
        mount = mount_of(context).uuid
        versions = {item.key_version for item in items}
        keyset = await self._keys.keyset(
            mount, request.name, versions, linearizable=context.linearizable
        )
        check_right(context, keyset is not None)
        if keyset is None:
            await self._make(mount, request, items)
            keyset = await usable(self._keys, request.name, versions, context)
        keyset.key.check_usable()
        ciphers.check_encrypts(keyset)
        return keyset

    async def _make(self, mount: str, request: pb.EncryptRequest, items: Sequence[Any]) -> None:
        """Makes the key that a request to encrypt names, derived where contexts are given."""
        if (await self._keys.config(mount)).disable_upsert:
            raise invalid("encryption key not found")
        kind = type_named(request.type)
        if not kind.encrypts:
            raise invalid(f"type: keys of type {kind.name} do not encrypt")
        contexts = {bool(item.context) for item in items}
        if len(contexts) > 1:
            raise invalid("context: should be set either in all the request blocks or in none")
        key = msgspec.structs.replace(
            new_key(kind), derived=contexts == {True}, convergent=request.convergent_encryption
        )
        await self._maker.create(mount, request.name, key)

    async def _for_decryption(
        self, name: str, items: Sequence[Any], context: RequestContext, *, rewrap: bool = False
    ) -> Keyset:
        versions = versions_in(item.ciphertext for item in items)
        if rewrap:
            versions |= {item.key_version for item in items}
        keyset = await usable(self._keys, name, versions, context)
        ciphers.check_encrypts(keyset, "decryption")
        return keyset


def _encrypted(message: pb.EncryptResult, result: Encrypted) -> None:
    message.ciphertext, message.key_version = result


def _decrypted(message: pb.DecryptResult, plaintext: bytes) -> None:
    message.plaintext = plaintext


def _not_decrypted(message: pb.DecryptResult) -> None:
    message.plaintext = b""

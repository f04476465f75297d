"""CipherService: encryption with named keys."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
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
    one_by_one,
    outcomes,
    run,
    status_of,
    usable,
)
from strongroom_transit.storage import Keys

_BITS = (128, 256, 512)
_plaintext, _nonce = attrgetter("plaintext"), attrgetter("nonce")
_malformed, _key_version = attrgetter("malformed"), attrgetter("key_version")


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
        items = list(request.batch_input)  # each is looked at several times
        if not items:
            if not request.HasField("plaintext"):
                raise invalid("missing plaintext to encrypt")
            keyset = await self._for_encryption(request, (request,), context)
            ciphertext, version = ciphers.encrypt(keyset, request)
            return pb.EncryptResponse(ciphertext=ciphertext, key_version=version)
        check_partial(request.partial_failure_response_code)
        keyset = await self._for_encryption(request, items, context)
        encrypt, shown = _encrypting(ciphers.Sealer(keyset, len(items)), items)
        results = await run(keyset, items, encrypt, self._config)
        return pb.EncryptResponse(
            status=status_of(results, request.partial_failure_response_code),
            batch_results=outcomes(items, results, shown),
        )

    async def Decrypt(
        self, request: pb.DecryptRequest, context: RequestContext
    ) -> pb.DecryptResponse:
        items = list(request.batch_input)
        if not items:
            if not request.ciphertext:
                raise invalid("missing ciphertext to decrypt")
            keyset = await self._for_decryption(request.name, (request,), context)
            return pb.DecryptResponse(plaintext=ciphers.decrypt(keyset, request))
        check_partial(request.partial_failure_response_code)
        keyset = await self._for_decryption(request.name, items, context)
        opener = ciphers.Opener(keyset)
        decrypt = one_by_one(opener.decrypt) if any(map(_malformed, items)) else opener.decrypt_all
        results = await run(keyset, items, decrypt, self._config)
        return pb.DecryptResponse(
            status=status_of(results, request.partial_failure_response_code),
            batch_results=outcomes(items, results, _decrypted, {"plaintext": b""}),
        )

    async def Rewrap(self, request: pb.RewrapRequest, context: RequestContext) -> pb.RewrapResponse:
        items = list(request.batch_input)
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
        rewrap, shown = _rewrapping(opener, sealer, items)
        results = await run(keyset, items, rewrap, self._config)
        return pb.RewrapResponse(
            status=status_of(results, request.partial_failure_response_code, 0),
            batch_results=outcomes(items, results, shown),
        )

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


_Operation = Callable[[Any], list[Any]]
_Shown = Callable[[Any], dict[str, Any]]


def _encrypting(sealer: ciphers.Sealer, items: Sequence[Any]) -> tuple[_Operation, _Shown]:
    """Returns what encrypts items, and what shows its results: in one step where each is as most are."""
    wanted = _one_version(items)
    if wanted is not None and all(map(_plaintext, items)) and not any(map(_nonce, items)):
        return partial(sealer.seal_all, wanted=wanted), _text_of(sealer)

    def encrypt(item: pb.EncryptItem) -> Encrypted:
        if not item.HasField("plaintext"):
            raise invalid("missing plaintext to encrypt")
        return sealer.encrypt(item)

    return one_by_one(encrypt), _encrypted


def _rewrapping(
    opener: ciphers.Opener, sealer: ciphers.Sealer, items: Sequence[Any]
) -> tuple[_Operation, _Shown]:
    """Returns the same for encrypting anew."""
    wanted = _one_version(items)
    if wanted is not None:
        return partial(ciphers.rewrap_all, opener, sealer, wanted=wanted), _text_of(sealer)
    return one_by_one(partial(ciphers.rewrap, opener, sealer)), _encrypted


def _one_version(items: Sequence[Any]) -> int | None:
    """Returns the version that all items want; None where they differ, or some are malformed."""
    versions = set(map(_key_version, items))
    if len(versions) == 1 and not any(map(_malformed, items)):
        return int(*versions)
    return None


def _text_of(sealer: ciphers.Sealer) -> _Shown:
    return lambda text: {"ciphertext": text, "key_version": sealer.version}


def _encrypted(result: Encrypted) -> dict[str, Any]:
    return {"ciphertext": result.ciphertext, "key_version": result.version}


def _decrypted(plaintext: bytes) -> dict[str, Any]:
    return {"plaintext": plaintext}

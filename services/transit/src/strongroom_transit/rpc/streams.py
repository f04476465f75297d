"""TransitStreamService and StreamCipherService: many items, and data of any length, over one stream."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from strongroom.transit.v1 import stream_pb2 as pb
from strongroom_client.sealed_stream import Header, HeaderReader
from strongroom_client.streaming_aead import Decryptor, Encryptor, StreamError
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_transit.config import Config
from strongroom_transit.domain import ciphers, signatures
from strongroom_transit.domain.ciphers import each
from strongroom_transit.domain.keyset import Keyset, version_in, versions_in
from strongroom_transit.domain.signatures import Signed
from strongroom_transit.rpc.common import outcomes, run, usable
from strongroom_transit.rpc.signatures import scheme_of
from strongroom_transit.storage import Keys

_DATA_KEY_BYTES = 32


class TransitStreamHandlers:
    """Answers one batch of a stream at a time: batches of one stream may come to different replicas."""

    def __init__(self, keys: Keys, config: Config) -> None:
        self._keys = keys
        self._config = config

    async def EncryptStream(
        self, request: pb.EncryptStreamRequest, context: RequestContext
    ) -> pb.EncryptStreamResponse:
        keyset = await _encrypting(self._keys, request.name, {request.key_version}, context)
        number = keyset.key.version_for_encryption(request.key_version)
        items, sealer = list(request.items), ciphers.Sealer(keyset)
        encrypt = partial(sealer.seal_all, wanted=number)
        results = await run(keyset, items, encrypt, self._config)
        return pb.EncryptStreamResponse(
            key_version=number, items=outcomes(items, results, _ciphertext)
        )

    async def DecryptStream(
        self, request: pb.DecryptStreamRequest, context: RequestContext
    ) -> pb.DecryptStreamResponse:
        items = list(request.items)
        versions = versions_in(item.ciphertext for item in items)
        keyset = await _encrypting(self._keys, request.name, versions, context)
        decrypt = ciphers.Opener(keyset).decrypt_all
        results = await run(keyset, items, decrypt, self._config)
        return pb.DecryptStreamResponse(items=outcomes(items, results, _plaintext))

    async def RewrapStream(
        self, request: pb.RewrapStreamRequest, context: RequestContext
    ) -> pb.RewrapStreamResponse:
        items = list(request.items)
        versions = versions_in(item.ciphertext for item in items) | {request.key_version}
        keyset = await _encrypting(self._keys, request.name, versions, context)
        number = keyset.key.version_for_encryption(request.key_version)

        opener, sealer = ciphers.Opener(keyset), ciphers.Sealer(keyset)
        rewrap = partial(ciphers.rewrap_all, opener, sealer, wanted=number)
        results = await run(keyset, items, rewrap, self._config)
        return pb.RewrapStreamResponse(
            key_version=number, items=outcomes(items, results, _ciphertext)
        )

    async def SignStream(
        self, request: pb.SignStreamRequest, context: RequestContext
    ) -> pb.SignStreamResponse:
        keyset = await usable(
            self._keys, request.name, {request.key_version}, context, "signing key"
        )
        scheme = scheme_of(request)
        scheme.check(keyset.key.kind)
        number = keyset.key.version_for_encryption(request.key_version)

        def sign(item: pb.SignStreamItem) -> Signed:
            return signatures.sign(keyset, item.input, item.context, number, scheme)

        items = list(request.items)
        results = await run(keyset, items, partial(each, sign), self._config)
        return pb.SignStreamResponse(key_version=number, items=outcomes(items, results, _signed))

    async def HmacStream(
        self, request: pb.HmacStreamRequest, context: RequestContext
    ) -> pb.HmacStreamResponse:
        keyset = await usable(self._keys, request.name, {request.key_version}, context)
        number = keyset.key.version_for_encryption(request.key_version)
        signatures.check_hmac(request.algorithm)

        def make(item: pb.HmacStreamItem) -> str:
            return signatures.make_hmac(keyset, item.input, number, request.algorithm)

        items = list(request.items)
        results = await run(keyset, items, partial(each, make), self._config)
        return pb.HmacStreamResponse(key_version=number, items=outcomes(items, results, _with_hmac))


class StreamCipherHandlers:
    """Encrypts and decrypts data of any length; a stream stays with one replica."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def Encrypt(
        self,
        requests: AsyncIterator[pb.StreamCipherServiceEncryptRequest],
        context: RequestContext,
    ) -> AsyncIterator[pb.StreamCipherServiceEncryptResponse]:
        encryptor: Encryptor | None = None
        async for request in requests:
            if encryptor is None:
                header, data_key = await self._new_header(request, context)
                encryptor = header.encryptor(data_key, request.associated_data)
                yield pb.StreamCipherServiceEncryptResponse(data=header.encode())
            if ready := encryptor.update(request.data):
                yield pb.StreamCipherServiceEncryptResponse(data=ready)
        yield pb.StreamCipherServiceEncryptResponse(data=_begun(encryptor).finalize())

    async def Decrypt(
        self,
        requests: AsyncIterator[pb.StreamCipherServiceDecryptRequest],
        context: RequestContext,
    ) -> AsyncIterator[pb.StreamCipherServiceDecryptResponse]:
        first: pb.StreamCipherServiceDecryptRequest | None = None
        reader, decryptor = HeaderReader(), None
        async for request in requests:
            first, data = first or request, request.data
            if decryptor is None:
                with _named_errors():
                    found = reader.update(data)
                if found is None:
                    continue
                header, data = found
                decryptor = await self._decryptor(header, first, context)
            if ready := _checked(decryptor.update, data):
                yield pb.StreamCipherServiceDecryptResponse(data=ready)
        with _named_errors():
            last = _begun(decryptor).finalize()
        yield pb.StreamCipherServiceDecryptResponse(data=last)

    async def _new_header(
        self, request: pb.StreamCipherServiceEncryptRequest, context: RequestContext
    ) -> tuple[Header, bytes]:
        keyset = await _encrypting(self._keys, request.name, {request.key_version}, context)
        data_key = os.urandom(_DATA_KEY_BYTES)
        wrapped = ciphers.seal(keyset, data_key, request.context, b"", request.key_version)
        return Header(request.name, wrapped.ciphertext), data_key

    async def _decryptor(
        self,
        header: Header,
        first: pb.StreamCipherServiceDecryptRequest,
        context: RequestContext,
    ) -> Decryptor:
        versions = {version_in(header.wrapped_key)}
        keyset = await _encrypting(self._keys, first.name, versions, context)
        wrapped = pb.DecryptStreamItem(ciphertext=header.wrapped_key, context=first.context)
        data_key = ciphers.decrypt(keyset, wrapped)
        with _named_errors():
            return header.decryptor(data_key, first.associated_data)


async def _encrypting(keys: Keys, name: str, versions: set[int], context: RequestContext) -> Keyset:
    keyset = await usable(keys, name, versions, context)
    ciphers.check_encrypts(keyset)
    return keyset


def _begun(cipher: Any) -> Any:
    if cipher is None:
        raise invalid("data: the stream ended before it began")
    return cipher


def _checked(update: Callable[[bytes], bytes], data: bytes) -> bytes:
    with _named_errors():
        return update(data)


@contextmanager
def _named_errors() -> Iterator[None]:
    """Says what is wrong with a stream as an error of its field."""
    try:
        yield
    except StreamError as error:
        raise invalid(f"data: {error}") from None


def _ciphertext(text: str) -> dict[str, Any]:
    return {"ciphertext": text}


def _plaintext(text: bytes) -> dict[str, Any]:
    return {"plaintext": text}


def _signed(result: Signed) -> dict[str, Any]:
    return {"signature": result.signature, "publickey": result.public_key or b""}


def _with_hmac(hmac: str) -> dict[str, Any]:
    return {"hmac": hmac}

"""TransitStreamService and StreamCipherService: many items, and data of any length, over one stream."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from strongroom.transit.v1 import stream_pb2 as pb
from strongroom_client.sealed_stream import Header, HeaderReader
from strongroom_client.streaming_aead import Decryptor, Encryptor, StreamError
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_transit.config import Config
from strongroom_transit.domain import ciphers, signatures
from strongroom_transit.domain.ciphers import each
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset, version_in, versions_in
from strongroom_transit.domain.signatures import Signed
from strongroom_transit.rpc.common import outcomes, run, usable
from strongroom_transit.rpc.signatures import scheme_of
from strongroom_transit.storage import Keys

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class _Wrapping:
    """The key version that wraps the data key of a stream: what is done under the data key is done under this.

    Args:
        keys: of all mounts.
        name: of the key.
        uuid: of the key: another of its name is another.
        version: of the key.
        context: of the request.
    """

    keys: Keys
    name: str
    uuid: str
    version: int
    context: RequestContext

    async def check_encrypts(self) -> None:
        """Raises where the version encrypts no more.

        Raises:
            ServiceError: INVALID; the key is gone or softly deleted, or the version too old.
        """
        (await self._key()).version_for_encryption(self.version)

    async def check_decrypts(self) -> None:
        """Raises where the version decrypts no more.

        Raises:
            ServiceError: as `check_encrypts`.
        """
        (await self._key()).check_decryption(self.version)

    async def _key(self) -> Key:
        keyset = await _encrypting(self.keys, self.name, {self.version}, self.context)
        if keyset.key.uuid != self.uuid:
            raise invalid("encryption key not found")
        return keyset.key


class StreamCipherHandlers:
    """Encrypts and decrypts data of any length; a stream stays with one replica.

    It ends where the key that wraps its data key may not be used any more, before anything more is done.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def Encrypt(
        self,
        requests: AsyncIterator[pb.StreamCipherServiceEncryptRequest],
        context: RequestContext,
    ) -> AsyncIterator[pb.StreamCipherServiceEncryptResponse]:
        begun: tuple[_Wrapping, Encryptor] | None = None
        async for request in requests:
            if begun is None:
                wrapping, header, data_key = await self._new_header(request, context)
                begun = wrapping, header.encryptor(data_key, request.associated_data)
                yield pb.StreamCipherServiceEncryptResponse(data=header.encode())
            wrapping, encryptor = begun
            await wrapping.check_encrypts()
            if ready := encryptor.update(request.data):
                yield pb.StreamCipherServiceEncryptResponse(data=ready)
        wrapping, encryptor = _begun(begun)
        await wrapping.check_encrypts()
        yield pb.StreamCipherServiceEncryptResponse(data=encryptor.finalize())

    async def Decrypt(
        self,
        requests: AsyncIterator[pb.StreamCipherServiceDecryptRequest],
        context: RequestContext,
    ) -> AsyncIterator[pb.StreamCipherServiceDecryptResponse]:
        first: pb.StreamCipherServiceDecryptRequest | None = None
        reader, begun = HeaderReader(), None
        async for request in requests:
            first, data = first or request, request.data
            if begun is None:
                with _named_errors():
                    found = reader.update(data)
                if found is None:
                    continue
                header, data = found
                begun = await self._decryptor(header, first, context)
            wrapping, decryptor = begun
            await wrapping.check_decrypts()
            if ready := _checked(decryptor.update, data):
                yield pb.StreamCipherServiceDecryptResponse(data=ready)
        wrapping, decryptor = _begun(begun)
        await wrapping.check_decrypts()
        with _named_errors():
            last = decryptor.finalize()
        yield pb.StreamCipherServiceDecryptResponse(data=last)

    async def _new_header(
        self, request: pb.StreamCipherServiceEncryptRequest, context: RequestContext
    ) -> tuple[_Wrapping, Header, bytes]:
        keyset = await _encrypting(self._keys, request.name, {request.key_version}, context)
        number = keyset.key.version_for_encryption(request.key_version)
        data_key = os.urandom(_DATA_KEY_BYTES)
        wrapped = ciphers.seal(keyset, data_key, request.context, b"", number)
        wrapping = _Wrapping(self._keys, request.name, keyset.key.uuid, number, context)
        return wrapping, Header(request.name, wrapped.ciphertext), data_key

    async def _decryptor(
        self,
        header: Header,
        first: pb.StreamCipherServiceDecryptRequest,
        context: RequestContext,
    ) -> tuple[_Wrapping, Decryptor]:
        number = version_in(header.wrapped_key)
        keyset = await _encrypting(self._keys, first.name, {number}, context)
        wrapped = pb.DecryptStreamItem(ciphertext=header.wrapped_key, context=first.context)
        data_key = ciphers.decrypt(keyset, wrapped)
        wrapping = _Wrapping(self._keys, first.name, keyset.key.uuid, number, context)
        with _named_errors():
            return wrapping, header.decryptor(data_key, first.associated_data)


async def _encrypting(keys: Keys, name: str, versions: set[int], context: RequestContext) -> Keyset:
    keyset = await usable(keys, name, versions, context)
    ciphers.check_encrypts(keyset)
    return keyset


def _begun(stream: T | None) -> T:
    if stream is None:
        raise invalid("data: the stream ended before it began")
    return stream


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

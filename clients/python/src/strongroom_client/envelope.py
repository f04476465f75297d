"""Files and streams encrypted here, under data keys that a transit key wraps: bulk data never travels.

What comes out is what `StreamCipherService` makes (`sealed_stream`), and either opens what the other made. Data keys
come from `transit/datakey`, are opened by `transit/decrypt` and wrapped anew by `transit/rewrap`: the token needs
`update` on `<mount>/datakey/plaintext/<key>` to encrypt, on `<mount>/decrypt/<key>` to decrypt, and on
`<mount>/rewrap/<key>`, which shows it nothing, to rewrap.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from strongroom.transit.v1 import cipher_pb2 as pb
from strongroom.transit.v1 import cipher_pb2_grpc
from strongroom_client.sealed_stream import Header, HeaderReader
from strongroom_client.streaming_aead import StreamError

_PIECE = 1 << 20

Pieces = Iterable[bytes] | AsyncIterable[bytes]


class Envelope:
    """Encrypts and decrypts data of any length with data keys of one transit key. Memory holds a piece or two.

    Args:
        channel: to the gateway.
        token: gives the token for each request.
        name: of the transit key. What is encrypted with another one is refused.
        mount: the path of its mount.
        context: of a derived key.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: Callable[[], str],
        name: str,
        mount: str = "transit",
        *,
        context: bytes = b"",
    ) -> None:
        self._ciphers = cipher_pb2_grpc.CipherServiceStub(channel)
        self._token = token
        self._name = name
        self._about: dict[str, Any] = {"name": name, "mount": mount, "context": context}

    async def encrypt(
        self, pieces: Pieces, *, associated_data: bytes = b"", wrapped_key: str = ""
    ) -> AsyncIterator[bytes]:
        """Yields the encrypted stream.

        Args:
            pieces: the plaintext, in pieces of any length.
            associated_data: has to be the same for decryption, and is not part of the stream.
            wrapped_key: of a data key that there is, as `datakey/wrapped` gives it; empty for a new one.

        Raises:
            grpc.aio.AioRpcError: there is no data key to be had.
        """
        header, data_key = await self._begin(wrapped_key)
        encryptor = header.encryptor(data_key, associated_data)
        yield header.encode()
        async for piece in _each(pieces):
            if ready := encryptor.update(piece):
                yield ready
        yield encryptor.finalize()

    async def decrypt(
        self, pieces: Pieces, *, associated_data: bytes = b""
    ) -> AsyncIterator[bytes]:
        """Yields the plaintext. Each piece is authentic; that none is missing is certain once the last has come.

        Raises:
            StreamError: the stream is not as it was encrypted, is cut off, or was encrypted with something else.
            grpc.aio.AioRpcError: its data key cannot be opened.
        """
        reader, decryptor = HeaderReader(), None
        async for piece in _each(pieces):
            if decryptor is None:
                found = reader.update(piece)
                if found is None:
                    continue
                header, piece = found
                decryptor = header.decryptor(await self._open(header), associated_data)
            if ready := decryptor.update(piece):
                yield ready
        if decryptor is None:
            reader.finalize()
        yield decryptor.finalize()

    async def rewrap(self, header: Header, *, key_version: int = 0) -> Header:
        """Returns a header with the data key wrapped by a version of the transit key, 0 for the newest.

        What was encrypted under the old one is behind the new one as it is.

        Raises:
            StreamError: the stream is of another key, or of version 1.
            grpc.aio.AioRpcError: the data key cannot be wrapped anew.
        """
        self._check(header)
        header.rewrapped(header.wrapped_key)  # before anything is asked
        request = pb.RewrapRequest(
            ciphertext=header.wrapped_key, key_version=key_version, **self._about
        )
        response = await self._ciphers.Rewrap(request, metadata=self._metadata())
        return header.rewrapped(response.ciphertext)

    async def encrypt_file(
        self, source: Path, target: Path, *, associated_data: bytes = b"", wrapped_key: str = ""
    ) -> None:
        """Encrypts a file into another, which takes its place at once and whole, readable by its owner.

        Raises:
            OSError: a file cannot be read or written.
            grpc.aio.AioRpcError: there is no data key to be had.
        """
        header, data_key = await self._begin(wrapped_key)

        def work() -> None:
            encryptor = header.encryptor(data_key, associated_data)
            with source.open("rb") as data, _whole(target) as output:
                output.write(header.encode())
                while piece := data.read(_PIECE):
                    output.write(encryptor.update(piece))
                output.write(encryptor.finalize())

        await asyncio.to_thread(work)

    async def decrypt_file(
        self, source: Path, target: Path, *, associated_data: bytes = b""
    ) -> None:
        """Decrypts a file into another, which is there only if all of it is authentic, readable by its owner.

        Raises:
            StreamError: the file is not as it was encrypted, is cut off, or was encrypted with something else.
            OSError: a file cannot be read or written.
            grpc.aio.AioRpcError: its data key cannot be opened.
        """
        with source.open("rb") as data:
            header, rest = await asyncio.to_thread(_read_header, data)
            decryptor = header.decryptor(await self._open(header), associated_data)

            def work() -> None:
                with _whole(target) as output:
                    output.write(decryptor.update(rest))
                    while piece := data.read(_PIECE):
                        output.write(decryptor.update(piece))
                    output.write(decryptor.finalize())

            await asyncio.to_thread(work)

    async def rewrap_file(self, file: Path, *, key_version: int = 0) -> bool:
        """Wraps the data key of a file anew; returns whether that changed the file.

        What is encrypted is copied as it is, on this machine, and the file is replaced at once and whole: half a
        header would be the loss of the data. Nobody else may write it meanwhile.

        Raises:
            StreamError: the file is no encrypted stream, is of another key, or of version 1.
            OSError: it cannot be read or written.
            grpc.aio.AioRpcError: the data key cannot be wrapped anew.
        """
        with file.open("rb") as data:
            header, rest = await asyncio.to_thread(_read_header, data)
            new = await self.rewrap(header, key_version=key_version)
            if new.key_version == header.key_version != 0:
                return False

            def work() -> None:
                with _whole(file) as output:
                    output.write(new.encode() + rest)
                    shutil.copyfileobj(data, output, _PIECE)
                    os.fchmod(output.fileno(), os.fstat(data.fileno()).st_mode & 0o7777)

            await asyncio.to_thread(work)
        return True

    async def _begin(self, wrapped_key: str) -> tuple[Header, bytes]:
        if wrapped_key:
            header = Header(self._name, wrapped_key)
            return header, await self._open(header)
        request = pb.CreateDataKeyRequest(kind="plaintext", **self._about)
        made = await self._ciphers.CreateDataKey(request, metadata=self._metadata())
        return Header(self._name, made.ciphertext), made.plaintext

    async def _open(self, header: Header) -> bytes:
        self._check(header)
        request = pb.DecryptRequest(ciphertext=header.wrapped_key, **self._about)
        opened = await self._ciphers.Decrypt(request, metadata=self._metadata())
        return bytes(opened.plaintext)

    def _check(self, header: Header) -> None:
        """Holds a stream to the key that it should be of: whoever wrote it may know another one."""
        if header.key_name != self._name:
            raise StreamError(f"the stream is not one of the key {self._name}")

    def _metadata(self) -> Any:
        return (("authorization", f"Bearer {self._token()}"),)


async def _each(pieces: Pieces) -> AsyncIterator[bytes]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def _read_header(data: BinaryIO) -> tuple[Header, bytes]:
    """Returns the header of a file, and what was read beyond it."""
    reader = HeaderReader()
    while piece := data.read(_PIECE):
        found = reader.update(piece)
        if found is not None:
            return found
    return reader.finalize()


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """Gives a file to write that takes the place of another once the block is over, and vanishes if that fails."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as output:
            yield output
            output.flush()
            os.fsync(descriptor)
        os.replace(name, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise

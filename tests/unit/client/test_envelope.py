"""Data encrypted by the client under data keys of a platform that wraps them as transit does."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from strongroom.transit.v1 import cipher_pb2 as pb
from strongroom.transit.v1 import cipher_pb2_grpc
from strongroom_client.envelope import Envelope
from strongroom_client.sealed_stream import HeaderReader
from strongroom_client.streaming_aead import StreamError


class Transit(cipher_pb2_grpc.CipherServiceServicer):
    """Keeps data keys by the texts that stand for them."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.version = 3
        self.asked: list[tuple[str, str, bytes]] = []
        self.tokens: set[object] = set()

    def wrap(self, key: bytes) -> str:
        text = f"vault:v{self.version}:{len(self.keys)}"
        self.keys[text] = key
        return text

    def _note(self, request: Any, context: Any) -> None:
        self.asked.append((request.mount, request.name, request.context))
        self.tokens |= {v for k, v in context.invocation_metadata() if k == "authorization"}

    async def Encrypt(self, request: Any, context: Any) -> Any:
        raise AssertionError("data travelled")

    async def CreateDataKey(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        key = os.urandom(32)
        return pb.CreateDataKeyResponse(ciphertext=self.wrap(key), plaintext=key)

    async def Decrypt(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if request.ciphertext not in self.keys:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "does not open")
        return pb.DecryptResponse(plaintext=self.keys[request.ciphertext])

    async def Rewrap(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return pb.RewrapResponse(ciphertext=self.wrap(self.keys[request.ciphertext]))


@pytest.fixture
def transit() -> Transit:
    return Transit()


@pytest.fixture
async def channel(transit: Transit) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    cipher_pb2_grpc.add_CipherServiceServicer_to_server(transit, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def envelope(channel: grpc.aio.Channel) -> Envelope:
    return Envelope(channel, lambda: "t0ken", "orders", "bulk", context=b"derived")


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def cut(data: bytes, length: int) -> list[bytes]:
    return [data[i : i + length] for i in range(0, len(data), length)]


@pytest.mark.parametrize("length", [0, 1, 65_536, 1_000_000])
async def test_what_is_encrypted_is_decrypted(
    transit: Transit, envelope: Envelope, length: int
) -> None:
    plaintext = os.urandom(length)
    sealed = await whole(envelope.encrypt(cut(plaintext, 10_007), associated_data=b"who"))
    assert length < 100 or plaintext[:100] not in sealed
    for pieces in (31, 1 << 20):
        opened = envelope.decrypt(cut(sealed, max(pieces, length // 1000)), associated_data=b"who")
        assert await whole(opened) == plaintext
    assert transit.asked == [("bulk", "orders", b"derived")] * 3
    assert transit.tokens == {"Bearer t0ken"}


async def test_pieces_may_come_in_their_own_time_and_a_data_key_be_used_again(
    transit: Transit, envelope: Envelope
) -> None:
    async def pieces(*some: bytes) -> AsyncIterator[bytes]:
        for each in some:
            yield each

    key = transit.wrap(bytes(range(32)))
    sealed = [await whole(envelope.encrypt(pieces(b"a", b"b"), wrapped_key=key)) for _ in range(2)]
    assert sealed[0] != sealed[1]
    assert len(transit.keys) == 1
    assert [await whole(envelope.decrypt(pieces(each))) for each in sealed] == [b"ab", b"ab"]


async def test_no_changed_byte_and_no_beginning_of_a_stream_is_opened(envelope: Envelope) -> None:
    sealed = await whole(envelope.encrypt([b"x" * 200_000]))
    positions = [*range(150), 65_535, 65_536, 131_072, len(sealed) - 1]
    for position in positions:
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises((StreamError, grpc.aio.AioRpcError)):
            await whole(envelope.decrypt([bytes(changed)]))
        with pytest.raises((StreamError, grpc.aio.AioRpcError)):
            await whole(envelope.decrypt([sealed[:position]]))
    for wrong in (sealed + b"x", sealed + sealed[-20:]):
        with pytest.raises(StreamError):
            await whole(envelope.decrypt([wrong]))
    with pytest.raises(StreamError):
        await whole(envelope.decrypt([sealed], associated_data=b"else"))
    with pytest.raises(StreamError):
        await whole(envelope.decrypt([]))


async def test_a_stream_of_another_key_is_not_opened_though_the_token_could(
    transit: Transit, channel: grpc.aio.Channel, envelope: Envelope
) -> None:
    sealed = await whole(Envelope(channel, lambda: "t", "payroll").encrypt([b"x"]))
    asked = len(transit.asked)
    with pytest.raises(StreamError, match="not one of the key orders"):
        await whole(envelope.decrypt([sealed]))
    assert len(transit.asked) == asked


async def test_a_header_is_wrapped_anew_without_the_data(
    transit: Transit, envelope: Envelope
) -> None:
    sealed = await whole(envelope.encrypt([b"plaintext"]))
    found = HeaderReader().update(sealed)
    assert found is not None
    transit.version = 10
    header, body = await envelope.rewrap(found[0]), found[1]
    assert header.key_version == 10
    del transit.keys[found[0].wrapped_key]
    assert await whole(envelope.decrypt([header.encode() + body])) == b"plaintext"


async def test_files(transit: Transit, envelope: Envelope, tmp_path: Path) -> None:
    plain, sealed, back = (tmp_path / name for name in ("plain", "sealed", "back"))
    plain.write_bytes(os.urandom(3_000_000))
    await envelope.encrypt_file(plain, sealed, associated_data=b"a")
    await envelope.decrypt_file(sealed, back, associated_data=b"a")
    assert back.read_bytes() == plain.read_bytes()
    assert stat.S_IMODE(back.stat().st_mode) == 0o600

    sealed.chmod(0o640)
    body = sealed.read_bytes()[-2_900_000:]
    assert not await envelope.rewrap_file(sealed)
    transit.version = 4
    transit_keys = set(transit.keys)
    assert await envelope.rewrap_file(sealed)
    for old in transit_keys:
        del transit.keys[old]
    assert sealed.read_bytes()[-2_900_000:] == body
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o640
    # A file may take the place of what it is made of.
    await envelope.decrypt_file(sealed, sealed, associated_data=b"a")
    assert sealed.read_bytes() == plain.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"plain", "sealed", "back"}


async def test_a_file_that_is_not_whole_leaves_nothing_behind(
    envelope: Envelope, tmp_path: Path
) -> None:
    plain, sealed, back = (tmp_path / name for name in ("plain", "sealed", "back"))
    plain.write_bytes(os.urandom(3_000_000))
    back.write_bytes(b"what was there")
    await envelope.encrypt_file(plain, sealed)
    whole_file = sealed.read_bytes()
    for wrong in (
        whole_file[:-1],
        whole_file[:2_000_000],
        whole_file[:20],
        b"",
        plain.read_bytes(),
    ):
        sealed.write_bytes(wrong)
        with pytest.raises(StreamError):
            await envelope.decrypt_file(sealed, back)
        assert back.read_bytes() == b"what was there"
    for wrong in (whole_file[:20], plain.read_bytes()):
        sealed.write_bytes(wrong)
        with pytest.raises(StreamError):
            await envelope.rewrap_file(sealed)
        assert sealed.read_bytes() == wrong
    assert {file.name for file in tmp_path.iterdir()} == {"plain", "sealed", "back"}

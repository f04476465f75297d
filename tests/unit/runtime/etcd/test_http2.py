"""Calls on the event loop: against gRPC's own server, and against one that does the unusual and the wrong."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop
from tests.garbage import no_frames_left
from tests.unit.runtime.etcd.scripted import ANSWER, WELL, Peer, ScriptedServer, block, well_behaved
from tests.waiting import until

from strongroom_runtime.etcd.http2 import Channel, connection, frames
from strongroom_runtime.etcd.http2.frames import frame

SIZES = [0, 1, 16_379, 16_380, 65_536, 5 << 20]


def unary(channel: Channel, method: str = "/t.T/Echo") -> Any:
    return channel.unary_unary(method, bytes, bytes)


def code_of(error: grpc.aio.AioRpcError) -> grpc.StatusCode:
    return error.code()


class Echo(grpc.GenericRpcHandler):
    """Echoes, fails, hangs, and counts those who went away."""

    def __init__(self) -> None:
        self.hanging = self.cancelled = self.sent = 0
        self.tokens: list[str] = []

    def service(self, details: Any) -> Any:
        self.tokens += [value for name, value in details.invocation_metadata if name == "token"]
        handler = getattr(self, details.method.rpartition("/")[2].lower())
        if details.method.endswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(handler)
        return grpc.unary_unary_rpc_method_handler(handler)

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "a reason: 100 % für\nalle")
        return b""

    async def hang(self, request: bytes, context: Any) -> bytes:
        self.hanging += 1
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""

    async def stream(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            if request == b"fail":
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, "too far")
            yield request

    async def floodstream(self, requests: Any, context: Any) -> Any:
        async for _ in requests:
            for _ in range(100):
                yield bytes(1 << 20)
                self.sent += 1


@contextlib.asynccontextmanager
async def grpc_server(echo: Echo, port: int = 0) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def channel(echo: Echo) -> AsyncIterator[Channel]:
    async with grpc_server(echo) as (_, port):
        channel = Channel([f"127.0.0.1:{port}"], None)
        yield channel
        await channel.close()


@contextlib.asynccontextmanager
async def over(*servers: ScriptedServer) -> AsyncIterator[Channel]:
    channel = Channel([server.endpoint for server in servers], None)
    try:
        yield channel
    finally:
        await channel.close()


@pytest.mark.parametrize("size", SIZES)
async def test_messages_of_any_size_go_both_ways(channel: Channel, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await unary(channel)(message, timeout=60) == message


async def test_many_calls_at_a_time_get_each_its_own_answer(channel: Channel) -> None:
    messages = [b"%d" % number * 700 for number in range(500)]
    answers = await asyncio.gather(*(unary(channel)(each, timeout=60) for each in messages))
    assert answers == messages


async def test_statuses_arrive_with_their_texts(channel: Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "/t.T/Fail")(b"", timeout=60)
    assert code_of(caught.value) is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "a reason: 100 % für\nalle"


async def test_a_call_ends_with_its_time_and_with_its_caller(channel: Channel, echo: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "/t.T/Hang")(b"", timeout=0.5)
    assert code_of(caught.value) is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: echo.cancelled == echo.hanging)
    before = echo.hanging  # 0 on a machine that is so busy that the first did not arrive in time
    task = asyncio.create_task(unary(channel, "/t.T/Hang")(b"", timeout=600))
    await until(lambda: echo.hanging > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: echo.cancelled == echo.hanging)
    assert await unary(channel)(b"x", timeout=60) == b"x"


async def test_calls_that_fail_leave_nothing_in_memory(channel: Channel) -> None:
    with no_frames_left():
        for _ in range(3):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await unary(channel, "/t.T/Fail")(b"", timeout=60)


async def test_metadata_goes_along(channel: Channel, echo: Echo) -> None:
    await unary(channel)(b"", timeout=60, metadata=(("token", "abc"),))
    assert echo.tokens == ["abc"]


async def test_a_stream_waits_for_who_reads_and_loses_nothing(channel: Channel) -> None:
    stream = channel.stream_stream("/t.T/Stream", bytes, bytes)()
    message = bytes(1 << 20)
    for _ in range(40):
        await stream.write(message)  # five times what may be on its way
    for _ in range(40):
        await asyncio.sleep(0.005)
        assert await stream.read() == message
    await stream.write(b"fail")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert code_of(caught.value) is grpc.StatusCode.OUT_OF_RANGE
    assert stream.done()
    assert await stream.details() == "too far"
    with pytest.raises(grpc.aio.AioRpcError):
        await stream.write(b"late")


async def test_who_does_not_read_holds_up_who_sends_and_nobody_else(
    channel: Channel, echo: Echo
) -> None:
    stream = channel.stream_stream("/t.T/FloodStream", bytes, bytes)()
    await stream.write(b"")
    while True:
        before = echo.sent
        await asyncio.sleep(0.3)
        if echo.sent == before > 0:
            break
    assert echo.sent < 30
    assert await unary(channel)(b"x", timeout=60) == b"x"
    for _ in range(100):
        assert len(await stream.read()) == 1 << 20
    assert await unary(channel)(b"x", timeout=60) == b"x"


async def test_a_stream_that_is_cancelled_ends_who_reads(channel: Channel) -> None:
    stream = channel.stream_stream("/t.T/Stream", bytes, bytes)()
    await stream.write(b"x")
    assert await stream.read() == b"x"
    reader = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(grpc.aio.AioRpcError):
        await reader


async def test_a_server_that_is_restarted_is_found_again(echo: Echo) -> None:
    async with grpc_server(echo) as (_, port):
        channel = Channel([f"127.0.0.1:{port}"], None)
        assert await unary(channel)(b"1", timeout=60) == b"1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel)(b"2", timeout=60)
    assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
    async with grpc_server(echo, port):
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert await unary(channel)(b"3", timeout=60) == b"3"
                    break
                await asyncio.sleep(0.05)
        await channel.close()


def test_connections_that_end_at_once_end_no_attempts(tmp_path: Path) -> None:
    """As while etcd is killed and this process is busy: uvloop's transport has no socket by then."""
    path = tmp_path / "socket"
    closing, closed = socket.socket(socket.AF_UNIX), threading.Event()
    closing.bind(str(path))
    closing.listen()

    def close_some() -> None:
        for _ in range(5):
            closing.accept()[0].close()
        closing.close()
        path.unlink()
        closed.set()

    async def be_busy() -> None:
        while not closed.is_set():
            # What the transport hears meanwhile comes before whoever connects goes on.
            time.sleep(0.002)
            await asyncio.sleep(0)

    async def call() -> bytes:
        channel = Channel([f"unix:{path}"], None)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await unary(channel)(b"", timeout=60)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await well_behaved(Peer(reader, writer))

        try:
            async with asyncio.timeout(60):
                await be_busy()
                await asyncio.start_unix_server(serve, path)
                while True:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        return bytes(await unary(channel)(b"", timeout=60))
                    await asyncio.sleep(0.01)
        finally:
            await channel.close()

    threading.Thread(target=close_some, daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(call()) == b""


async def test_a_call_fails_at_once_where_nobody_can_be_reached() -> None:
    channel = Channel(["127.0.0.1:1", "127.0.0.1:2"], None)
    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)(b"", timeout=600)
    assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
    await channel.close()
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(channel)(b"", timeout=60)


async def test_a_name_that_cannot_be_resolved_is_like_a_member_that_is_away() -> None:
    async with ScriptedServer(well_behaved) as one:
        channel = Channel(["a" * 70 + ".invalid:1", one.endpoint], None)
        await unary(channel)(b"", timeout=60)
        await channel.close()
    channel = Channel(["a" * 70 + ".invalid:1"], None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel)(b"", timeout=60)
    assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
    await channel.close()


async def test_members_take_turns_and_one_that_is_away_is_passed_over() -> None:
    async with ScriptedServer(well_behaved) as one, ScriptedServer(well_behaved) as two:
        channel = Channel([one.endpoint, "127.0.0.1:1", two.endpoint], None)
        for _ in range(20):
            await unary(channel)(b"", timeout=60)
            await asyncio.sleep(0.01)
        assert (one.connections, two.connections) == (1, 1)
        await channel.close()


async def test_answers_may_come_byte_by_byte() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            peer.answer(await peer.request(), b"message", step=1)

    async with ScriptedServer(script) as server, over(server) as channel:
        for _ in range(3):
            assert await unary(channel)(b"", timeout=60) == b"message"


async def test_padding_and_headers_in_several_frames_are_understood() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        first, last = block(ANSWER), block([*WELL, ("padding", "x" * 1000)])
        padded = frames.PADDED | frames.PRIORITY
        peer.write(
            frame(frames.HEADERS, padded, stream, b"\x03" + bytes(5) + first[:4] + bytes(3))
            + frame(frames.CONTINUATION, frames.END_HEADERS, stream, first[4:])
            + frame(frames.DATA, frames.PADDED, stream, b"\x02\0\0\0\0\x02a" + bytes(2))
            + frame(frames.DATA, 0, stream, b"b")
            + frame(frames.HEADERS, frames.END_STREAM, stream, last[:500])
            + frame(frames.CONTINUATION, 0, stream, last[500:600])
            + frame(frames.CONTINUATION, frames.END_HEADERS, stream, last[600:])
        )
        await peer.serve()

    async with ScriptedServer(script) as server, over(server) as channel:
        assert await unary(channel)(b"", timeout=60) == b"ab"


async def test_no_more_is_sent_than_the_windows_allow() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 10})
        await peer.next(frames.HEADERS)
        await peer.next(frames.DATA)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.next(frames.DATA)
        assert peer.sent_to_us == 10
        peer.write(frames.window_update(1, 5))
        await peer.next(frames.DATA)
        assert peer.sent_to_us == 15
        # What is open already gains by a larger window for all, and waits for the connection's.
        peer.write(frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 20}))
        while peer.sent_to_us < frames.DEFAULT_WINDOW:
            await peer.next(frames.DATA)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.next(frames.DATA)
        assert peer.sent_to_us == frames.DEFAULT_WINDOW
        peer.write(frames.window_update(0, 1 << 20))
        peer.answer(await peer.request(), b"%d" % peer.sent_to_us)
        await peer.serve()

    async with ScriptedServer(script) as server, over(server) as channel:
        assert await unary(channel)(bytes(100_000), timeout=60) == b"100005"


async def test_no_more_calls_are_open_than_the_server_takes() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({frames.MAX_CONCURRENT_STREAMS: 2})
        while True:
            first, second = await peer.request(), await peer.request()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await peer.request()
            peer.answer(second)
            peer.answer(first)

    async with ScriptedServer(script) as server, over(server) as channel:
        await asyncio.gather(*(unary(channel)(b"", timeout=60) for _ in range(8)))


async def test_a_call_that_was_not_begun_goes_over_another_connection() -> None:
    async def leaving(peer: Peer) -> None:
        await peer.greet()
        first = await peer.request()
        await peer.request()
        numbers = first.to_bytes(4, "big") + bytes(4)
        peer.write(frame(frames.GOAWAY, 0, 0, numbers))
        await asyncio.sleep(0.05)
        peer.answer(first, b"begun")
        await peer.serve()

    async def another(peer: Peer) -> None:
        await peer.greet()
        while True:
            peer.answer(await peer.request(), b"again")

    async with ScriptedServer(leaving, another) as server, over(server) as channel:
        calls = [asyncio.create_task(unary(channel)(b"", timeout=60)) for _ in range(2)]
        assert sorted(await asyncio.gather(*calls)) == [b"again", b"begun"]


async def test_a_call_that_was_refused_is_made_again_and_no_other() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.greet()
        for code in (frames.REFUSED_STREAM, None, frames.PROTOCOL_ERROR):
            stream = await peer.request()
            if code is None:
                peer.answer(stream)
            else:
                peer.write(frame(frames.RST_STREAM, 0, stream, code.to_bytes(4, "big")))
        await peer.serve()

    async with ScriptedServer(refusing) as server, over(server) as channel:
        await unary(channel)(b"", timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)(b"", timeout=60)
        assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "wrong",
    [
        (1 << 14 | 1).to_bytes(3, "big") + bytes(6),
        frame(frames.PUSH_PROMISE, 0, 1, bytes(4)),
        frame(frames.SETTINGS, 0, 0, bytes(5)),
        frames.settings({frames.MAX_FRAME_SIZE: 0}),
        frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}),
        frame(frames.HEADERS, 0, 1, block(ANSWER)) + frame(frames.DATA, 0, 1, b"x"),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, block(ANSWER)),
        frame(frames.HEADERS, frames.END_HEADERS, 1, block([*ANSWER, ("a", "b")], table=True)),
        frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\xffab"),
        frame(frames.DATA, frames.PADDED, 1, b""),
        frame(frames.WINDOW_UPDATE, 0, 0, frames.MAX_WINDOW.to_bytes(4, "big")),
        frame(frames.WINDOW_UPDATE, 0, 0, b"\0"),
        frame(frames.GOAWAY, 0, 0, b""),
    ],
    ids=[
        "long", "push", "settings", "frames", "windows", "interrupted", "continuation", "table", "padding", "padded",
        "window", "short", "goaway",
    ],
)  # fmt: skip
async def test_what_breaks_the_protocol_ends_the_connection_and_the_next_one_serves(
    wrong: bytes,
) -> None:
    told: list[frames.Frame] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.write(wrong)
        told.append(await peer.next(frames.GOAWAY))

    async with ScriptedServer(script, well_behaved) as server, over(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)(b"", timeout=60)
        assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
        await unary(channel)(b"", timeout=60)
        assert (server.connections, len(told)) == (2, 1)


@pytest.mark.parametrize(
    ("headers", "message", "code"),
    [
        ([(":status", "503")], b"", grpc.StatusCode.UNAVAILABLE),
        ([*ANSWER, ("grpc-status", "99")], b"", grpc.StatusCode.UNKNOWN),
        ([*ANSWER, ("grpc-status", "x")], b"", grpc.StatusCode.UNKNOWN),
        ([*ANSWER], b"", grpc.StatusCode.UNKNOWN),
        ([*ANSWER, *WELL], b"", grpc.StatusCode.INTERNAL),
        ([*ANSWER, *WELL], b"\0\0\0\0\x09cut", grpc.StatusCode.INTERNAL),
        ([*ANSWER, *WELL], b"\1\0\0\0\0", grpc.StatusCode.INTERNAL),
        ([*ANSWER, *WELL], b"\0\xff\0\0\0", grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_answer_that_is_none_is_an_error_of_the_call_alone(
    headers: list[tuple[str, str]], message: bytes, code: grpc.StatusCode
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        if message:
            peer.write(frame(frames.HEADERS, frames.END_HEADERS, stream, block(ANSWER)))
            peer.write(frame(frames.DATA, 0, stream, message))
            headers[:] = WELL
        ending = frames.END_HEADERS | frames.END_STREAM
        peer.write(frame(frames.HEADERS, ending, stream, block(headers)))
        await peer.serve()

    async with ScriptedServer(script) as server, over(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)(b"", timeout=60)
        assert code_of(caught.value) is code
        await unary(channel)(b"", timeout=60)
        assert server.connections == 1


async def test_a_member_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LATE_SECONDS", 0.05)
    monkeypatch.setattr(connection, "_PONG_SECONDS", 1.0)

    async def hanging(peer: Peer) -> None:
        await peer.greet()
        await peer.next(frames.PING)
        await asyncio.sleep(600)

    async with ScriptedServer(hanging, well_behaved) as server, over(server) as channel:
        async with asyncio.timeout(60):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel)(b"", timeout=600)
        assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
        await unary(channel)(b"", timeout=60)


async def test_a_member_that_is_slow_is_asked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LATE_SECONDS", 0.05)
    monkeypatch.setattr(connection, "_PONG_SECONDS", 1.0)

    async def slow(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        ping = await peer.next(frames.PING)
        peer.write(frame(frames.PING, frames.ACK, 0, ping.payload))
        await asyncio.sleep(1.5)
        peer.answer(stream, b"at last")
        await peer.serve()

    async with ScriptedServer(slow) as server, over(server) as channel:
        assert await unary(channel)(b"", timeout=60) == b"at last"


async def test_pings_are_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.write(frame(frames.PING, 0, 0, b"12345678"))
        pong = await peer.next(frames.PING)
        peer.answer(stream, pong.payload if pong.flags & frames.ACK else b"")
        await peer.serve()

    async with ScriptedServer(script) as server, over(server) as channel:
        assert await unary(channel)(b"", timeout=60) == b"12345678"


async def test_a_connection_that_has_had_all_its_streams_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_LAST_STREAM", 5)
    async with ScriptedServer(well_behaved) as server, over(server) as channel:
        for _ in range(10):
            await asyncio.gather(*(unary(channel)(b"", timeout=60) for _ in range(2)))
        assert server.connections >= 7

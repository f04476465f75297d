"""Frames of HTTP/2 (RFC 9113, sections 4 and 6) and headers that stand by themselves (RFC 7541)."""

from collections.abc import Iterator
from typing import NamedTuple

from hpack import Decoder, Encoder, HPACKError

from strongroom_runtime.bounded import Bounded

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 5, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

# Settings (section 6.5.2).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = (
    1, 2, 3, 4, 5,
)  # fmt: skip
# Errors (section 7).
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = (
    0, 1, 3, 6, 7, 8,
)  # fmt: skip

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW, DEFAULT_FRAME = 65_535, 16_384
MAX_WINDOW = (1 << 31) - 1
_HEAD = 9
_BLOCKS = 256

HeaderList = tuple[tuple[str, str], ...]


class ProtocolError(Exception):
    """The other side does not keep to the protocol: the connection ends.

    Args:
        message: what is wrong.
        code: of section 7.
    """

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class Frame(NamedTuple):
    """A frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """Returns a frame as it goes over the wire."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def settings(values: dict[int, int]) -> bytes:
    """Returns a frame with settings."""
    pairs = (key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def settings_in(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yields the settings of a frame.

    Raises:
        ProtocolError: it has another form.
    """
    if len(payload) % 6:
        raise ProtocolError("settings of a wrong length", FRAME_SIZE_ERROR)
    for at in range(0, len(payload), 6):
        yield (
            int.from_bytes(payload[at : at + 2], "big"),
            int.from_bytes(payload[at + 2 : at + 6], "big"),
        )


def window_update(stream: int, size: int) -> bytes:
    """Returns a frame that lets the other side send so many bytes more; on stream 0 over all streams."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def goaway(code: int) -> bytes:
    """Returns a frame that says farewell, and why; no stream of the other side was begun."""
    return frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big"))


def number_in(payload: bytes, at: int = 0) -> int:
    """Returns the 31 bits that stand at a place of a payload, without the reserved one before them.

    Raises:
        ProtocolError: the payload is too short.
    """
    if len(payload) < at + 4:
        raise ProtocolError("a frame is too short", FRAME_SIZE_ERROR)
    return int.from_bytes(payload[at : at + 4], "big") & MAX_WINDOW


def unpadded(flags: int, payload: bytes) -> bytes:
    """Returns what DATA or HEADERS carry, without padding and priority.

    Raises:
        ProtocolError: there is more padding than payload.
    """
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - (payload[0] if payload else end)
    if flags & PRIORITY:
        start += 5
    if start > end:
        raise ProtocolError("more padding than payload")
    return payload[start:end]


class FrameReader:
    """Cuts what comes in into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that are complete now.

        Raises:
            ProtocolError: a frame is longer than was agreed.
        """
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _HEAD:
            size = int.from_bytes(data[at : at + 3], "big")
            if size > DEFAULT_FRAME:
                raise ProtocolError("a frame is too long", FRAME_SIZE_ERROR)
            behind = at + _HEAD + size
            if behind > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & MAX_WINDOW
            yield Frame(data[at + 3], data[at + 4], stream, data[at + _HEAD : behind])
            at = behind
        self._rest = data[at:]


class Headers:
    """Header blocks without a dynamic table, so that the same block always means the same and is read once.

    The table's size is announced as 0 (RFC 7541, section 4.2).
    """

    def __init__(self) -> None:
        self._read: Bounded[bytes, dict[str, str]] = Bounded(_BLOCKS)
        self._written: Bounded[HeaderList, bytes] = Bounded(_BLOCKS)

    def read(self, block: bytes) -> dict[str, str]:
        """Returns the headers of a block.

        Raises:
            ProtocolError: it cannot be read.
        """
        known = self._read.get(block)
        if known is None:
            decoder = Decoder()
            decoder.max_allowed_table_size = decoder.header_table_size = 0
            try:
                known = {str(name): str(value) for name, value in decoder.decode(block)}
            except (HPACKError, UnicodeDecodeError) as error:
                raise ProtocolError("headers cannot be read") from error
            self._read.keep(block, known)
        return known

    def write(self, headers: HeaderList) -> bytes:
        """Returns a block."""
        known = self._written.get(headers)
        if known is None:
            encoder = Encoder()
            encoder.header_table_size = 0
            known = encoder.encode(headers, huffman=False)
            self._written.keep(headers, known)
        return known

"""Connections that can be held up or cut. A process of its own carries them, so that no work slows them down."""

import asyncio
import contextlib
import multiprocessing
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from tests.ports import free_port

_CHUNK = 65_536
_HEAD = b"\r\n\r\n"
_SENDER = b"x-server-from:"


@dataclass
class _Carried:
    """A connection that is carried.

    Args:
        task: does it.
        sender: the member of etcd that it is from, where it is one's.
        moving: set for each way, there and back, while it is not held up.
    """

    task: "asyncio.Task[None]"
    moving: tuple[asyncio.Event, asyncio.Event]
    sender: str = ""


@dataclass
class _Link:
    """Carries what comes to a port to another.

    Args:
        target: the other port.
        named: whether each connection begins with the head of a request over HTTP that names its sender, as those of
            etcd's members do.
    """

    target: int
    named: bool
    held: tuple[bool, bool] = (False, False)
    all_refused: bool = False
    refused: frozenset[str] = frozenset()
    connections: list[_Carried] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    def hold(self, there: bool, back: bool) -> None:
        """Lets nothing through, in one way or both, until it is told otherwise; then everything."""
        self.held = (there, back)
        for each in self.connections:
            for held, moving in zip(self.held, each.moving, strict=True):
                (moving.clear if held else moving.set)()

    def refuse(self, everything: bool, senders: Sequence[str] = ()) -> None:
        """Ends connections, and takes no new ones: all, or those of some senders."""
        self.all_refused, self.refused = everything, frozenset(senders)
        for each in self.connections:
            if everything or each.sender in self.refused:
                each.task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        moving = (asyncio.Event(), asyncio.Event())
        for held, event in zip(self.held, moving, strict=True):
            if not held:
                event.set()
        carried = _Carried(task, moving)
        self.connections.append(carried)
        try:
            head = b""
            if self.named:
                head = await reader.readuntil(_HEAD)
                carried.sender = _sender(head)
            if self.all_refused or carried.sender in self.refused:
                return
            behind, onward = await asyncio.open_connection("127.0.0.1", self.target)
            with contextlib.closing(onward):
                await moving[0].wait()
                onward.write(head)
                await asyncio.gather(
                    _pipe(reader, onward, moving[0]), _pipe(behind, writer, moving[1])
                )
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connections.remove(carried)
            writer.close()


def _sender(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(_SENDER):
            return line[len(_SENDER) :].strip().decode()
    return ""


async def _pipe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moving: asyncio.Event
) -> None:
    while data := await reader.read(_CHUNK):
        await moving.wait()
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


def _serve(control: Connection) -> None:
    """Does what it is told until nobody is left who could."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        asyncio.run(_obey(control))


async def _obey(control: Connection) -> None:
    links: dict[int, _Link] = {}
    loop = asyncio.get_running_loop()
    while True:
        command, port, *arguments = await loop.run_in_executor(None, control.recv)
        if command == "carry":
            links[port] = _Link(*arguments)
            await links[port].start(port)
        else:
            getattr(links[port], command)(*arguments)
        control.send(None)


class Network:
    """The links, each of which is known by its port."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._control, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._lock = threading.Lock()

    def carry(self, target: int, named: bool = False) -> int:
        """Returns the port of a new link."""
        port = free_port()
        self._tell("carry", port, target, named)
        return port

    def hold(self, port: int, there: bool, back: bool) -> None:
        """Lets nothing through, in one way or both; no connection breaks."""
        self._tell("hold", port, there, back)

    def cut(self, port: int) -> None:
        """Breaks all connections, and takes none."""
        self._tell("refuse", port, True)

    def cut_off(self, port: int, sender: str) -> None:
        """Breaks the connections of a member of etcd, and takes none of them."""
        self._tell("refuse", port, False, [sender])

    def heal(self, port: int) -> None:
        """Lets everything through, and takes all connections."""
        self._tell("hold", port, False, False)
        self._tell("refuse", port, False)

    def close(self) -> None:
        """Ends the process, and with it all connections."""
        self._process.kill()
        self._process.join()

    def _tell(self, *command: object) -> None:
        with self._lock:
            self._control.send(command)
            self._control.recv()

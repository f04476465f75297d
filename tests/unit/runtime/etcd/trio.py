"""Three real members of etcd on loopback, of which one can be cut off from the others, but not from its clients."""

import asyncio
import contextlib
from pathlib import Path

from tests.ports import free_port

from strongroom_runtime.children import ending_with_parent
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.server import find_binary


class _Peers:
    """Stands in front of what a member listens on for others. Each request names who sends it (`X-Server-From`)."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.refused: set[str] = set()  # ids of members; all of them where it holds an empty text
        self._target = target
        self._server: asyncio.Server | None = None
        self._carried: dict[asyncio.Task[None], str] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._end(set(self._carried.values()))
        await asyncio.gather(*self._carried, return_exceptions=True)

    def refuse(self, *senders: str) -> None:
        """Carries nothing of some members any more, and of the others as before."""
        self.refused = set(senders)
        self._end(set(self._carried.values()) if "" in senders else self.refused)

    def _end(self, senders: set[str]) -> None:
        for task, sender in self._carried.items():
            if sender in senders:
                task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carried[task] = ""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            names = [
                line.partition(b":")[2].strip().decode()
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"x-server-from:")
            ]
            self._carried[task] = sender = names[0] if names else "unknown"
            if sender in self.refused or "" in self.refused:
                return
            behind, onward = await asyncio.open_connection("127.0.0.1", self._target)
            onward.write(head)
            with contextlib.closing(onward):
                await asyncio.gather(_pipe(reader, onward), _pipe(behind, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            del self._carried[task]
            writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


class Trio:
    """A cluster of three.

    Args:
        folder: where their data are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._peers = [_Peers(free_port()) for _ in range(3)]
        self._clients = [free_port() for _ in range(3)]
        self._processes: list[asyncio.subprocess.Process] = []
        self._ids: list[str] = []

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{port}" for port in self._clients)

    async def start(self) -> None:
        for peers in self._peers:
            await peers.start()
        cluster = ",".join(f"m{n}=http://127.0.0.1:{p.port}" for n, p in enumerate(self._peers))
        for number, peers in enumerate(self._peers):
            client = f"http://127.0.0.1:{self._clients[number]}"
            command = [
                str(find_binary()), f"--name=m{number}", f"--data-dir={self._folder / str(number)}",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                f"--listen-peer-urls=http://127.0.0.1:{peers._target}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peers.port}",
                f"--initial-cluster={cluster}", "--logger=zap", "--log-outputs=stderr",
            ]  # fmt: skip
            with (self._folder / f"{number}.log").open("wb") as log:
                self._processes.append(
                    await asyncio.create_subprocess_exec(
                        *ending_with_parent(command), stdout=log, stderr=log
                    )
                )
        for endpoint in self.endpoints:
            self._ids.append(await self._id(endpoint))

    async def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        for peers in self._peers:
            await peers.stop()

    def cut_off(self, number: int) -> None:
        """Lets a member and the two others hear nothing of each other."""
        for at, peers in enumerate(self._peers):
            peers.refuse("" if at == number else self._ids[number])

    def heal(self) -> None:
        """Lets all hear each other again."""
        for peers in self._peers:
            peers.refuse()

    async def _id(self, endpoint: str) -> str:
        client = EtcdClient(EtcdConfig((endpoint,)))
        try:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(ServiceError):
                        return f"{(await client.range(b'x')).header.member_id:x}"
                    await asyncio.sleep(0.1)
        finally:
            await client.close()

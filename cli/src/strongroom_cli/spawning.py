"""Starting the servers of a platform, and knowing of their ends."""

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Protocol

from strongroom_runtime.children import adopt_orphans, ending_with_parent

_STOP_SECONDS = 5.0
_REQUEST_SECONDS = 60.0


class Running(Protocol):
    """A process that was started: what `asyncio.subprocess.Process` has of it."""

    @property
    def pid(self) -> int:
        """Its id, also after its end."""

    @property
    def returncode(self) -> int | None:
        """With which status it ended, or by which signal as a negative number; None while it runs."""

    async def wait(self) -> int:
        """Waits for its end; returns the status."""

    def send_signal(self, signal: int) -> None:
        """Sends a signal to it, as long as it runs."""

    def kill(self) -> None:
        """Ends it by force."""


class Spawner(Protocol):
    """Starts servers, which end with this process."""

    async def begin(self) -> None:
        """Gets ready, so that starting one takes less.

        Raises:
            OSError: the system does not let it.
        """

    async def spawn(self, arguments: Sequence[str], descriptor: int) -> Running:
        """Starts one.

        Args:
            arguments: of the command `strongroom`.
            descriptor: what it is to hold until its end; the caller's own stays open.

        Raises:
            OSError: the system does not let it.
        """

    async def close(self) -> None:
        """Ends what served to start them; those that run go on."""


class Executing:
    """Starts each as a new program. This works everywhere.

    Args:
        program: whose arguments are given.
    """

    def __init__(
        self, program: Sequence[str] = (sys.executable, "-m", "strongroom_cli.main")
    ) -> None:
        self._program = program

    async def begin(self) -> None:
        """See `Spawner`."""

    async def spawn(self, arguments: Sequence[str], descriptor: int) -> Running:
        """See `Spawner`."""
        return await _execute([*self._program, *arguments], descriptor)

    async def close(self) -> None:
        """See `Spawner`."""


class Forking:
    """Has them made by a fork server (`strongroom_cli.forkserver`), which is started anew should it end.

    Args:
        program: the fork server, to which a descriptor is given.
        first: the id of a fork server that is a child of this process already, and the socket to it.
    """

    def __init__(
        self,
        program: Sequence[str] = (sys.executable, "-m", "strongroom_cli.forkserver"),
        first: tuple[int, socket.socket] | None = None,
    ) -> None:
        self._program = program
        self._first = first
        self._server: Running | None = None
        self._channel: socket.socket | None = None
        self._one = asyncio.Lock()

    @staticmethod
    def possible() -> bool:
        """Whether this system has what it takes: Linux 5.3 and later."""
        if sys.platform != "linux":
            return False
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:
            return False
        return True

    async def begin(self) -> None:
        """Starts the fork server, unless it is there. See `Spawner`."""
        if self._first is None:
            self._channel = await self._start()
            return
        adopt_orphans()
        server, self._channel = self._first
        self._channel.setblocking(False)
        self._server = Forked(server)

    async def spawn(self, arguments: Sequence[str], descriptor: int) -> Running:
        """See `Spawner`."""
        async with self._one:
            for _ in range(2):  # the fork server may have ended since the last
                with contextlib.suppress(ConnectionError, TimeoutError):
                    return Forked(await self._ask(arguments, descriptor))
        raise OSError(errno.ECHILD, "the fork server ends or does not answer")

    async def close(self) -> None:
        """See `Spawner`."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._server is not None:
            try:
                await asyncio.wait_for(self._server.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._server.kill()
                await self._server.wait()
            self._server = None

    async def _start(self) -> socket.socket:
        """Starts a fork server in the place of one that is there; returns the socket to it."""
        await self.close()
        adopt_orphans()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._server = await _execute([*self._program, str(theirs.fileno())], theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    async def _ask(self, arguments: Sequence[str], descriptor: int) -> int:
        """Returns the id of a new server.

        Raises:
            ConnectionError: the fork server has ended.
            TimeoutError: it does not answer.
            OSError: the system does not let it make one.
        """
        channel = self._channel or await self._start()
        # Until it has answered: an answer that nobody waits for is not another's.
        self._channel = None
        try:
            socket.send_fds(channel, [json.dumps(list(arguments)).encode()], [descriptor])
            async with asyncio.timeout(_REQUEST_SECONDS):
                answer = await asyncio.get_running_loop().sock_recv(channel, 32)
            if not answer:
                raise ConnectionResetError(errno.ECONNRESET, "the fork server has ended")
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        if (server := int(answer)) < 0:
            raise OSError(-server, os.strerror(-server))
        return server


def prepare() -> Spawner:
    """Returns the best that this system has, for a process that has begun nothing: see `forkserver.fork_from_here`.

    Raises:
        OSError: the system does not let it.
    """
    if not Forking.possible():
        return Executing()
    from strongroom_cli import forkserver

    return Forking(first=forkserver.fork_from_here())


async def _execute(command: Sequence[str], descriptor: int) -> asyncio.subprocess.Process:
    """Runs a program that ends with this process and holds a descriptor."""
    return await asyncio.create_subprocess_exec(
        *ending_with_parent(command),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(descriptor,),
        start_new_session=True,  # a terminal's Ctrl-C is for this process, which passes it on
    )


class Forked:
    """A child of this process that another one made.

    Args:
        pid: of the child.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set_result(self.returncode)

    async def wait(self) -> int:
        """See `Running`."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """See `Running`."""
        if self.returncode is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """See `Running`."""
        self.send_signal(signal.SIGKILL)

"""A process that has loaded what every server needs, and makes servers of copies of itself by fork(2).

To load it takes 0.6 s of CPU, to fork 20 ms, and what was loaded is in memory once. It is a copy of the supervisor
itself, from before that has begun anything; where it ended, it is run as a program. The other side is
`strongroom_cli.spawning`; what was weighed is in `docs/decisions/0043-fork-server.md`.
"""

import contextlib
import errno
import gc
import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import NoReturn

import setproctitle

from strongroom_cli.main import main, poll_in_waiting_threads
from strongroom_runtime.children import end_with

# What the other side is told is an id, or a negative errno(3).
_LARGEST_REQUEST = 1 << 17
_ADOPTION_SECONDS = 10.0


def run(channel: socket.socket) -> list[str] | None:
    """Makes a server of each request, until the other side is gone.

    Args:
        channel: messages of arguments, a JSON list each, with a descriptor that the server is to hold until its end.

    Returns:
        In a server the arguments of its command, in the fork server itself None.
    """
    supervisor = os.getppid()
    while True:
        request, descriptors, flags, _ = socket.recv_fds(channel, _LARGEST_REQUEST, 1)
        if not request:
            return None
        try:
            if flags & socket.MSG_TRUNC:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            server = _fork()
        except OSError as error:
            channel.send(str(-(error.errno or errno.EIO)).encode())
        else:
            if server is None:
                arguments = [str(argument) for argument in json.loads(request)]
                _become(arguments, supervisor)
                return arguments
            channel.send(str(server).encode())
        for descriptor in descriptors:
            os.close(descriptor)


def _fork() -> int | None:
    """Makes a copy of this process that is no child of it, so that it goes to the supervisor.

    Returns:
        Its id, here; None in the copy.

    Raises:
        OSError: the system has no memory for it, or too many processes.
    """
    told, tell = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            _fork_again(tell)
            os.close(told)
            return None
    finally:
        os.close(tell)
    try:
        server = os.read(told, 32)
    finally:
        os.close(told)
    _, status = os.waitpid(between, 0)
    if not server:
        number = os.waitstatus_to_exitcode(status)
        raise OSError(number, os.strerror(number))
    return int(server)


def _fork_again(tell: int) -> None:
    """Ends this process once it has a child; returns in the child alone."""
    try:
        if server := os.fork():
            os.write(tell, str(server).encode())
            os._exit(0)
    except OSError as error:
        os._exit(error.errno or errno.EIO)


def _become(arguments: list[str], supervisor: int) -> None:
    """Makes of this copy what a process would be that the supervisor had started itself."""
    os.setsid()
    deadline = time.monotonic() + _ADOPTION_SECONDS
    while os.getppid() != supervisor and time.monotonic() < deadline:
        time.sleep(0.001)  # the process in between is about to end
    if not end_with(supervisor):
        os._exit(1)
    setproctitle.setproctitle(" ".join(["strongroom", *arguments]))


def load() -> None:
    """Loads what all servers need, and puts it where no collection of garbage touches, and so copies, its pages.

    Raises:
        RuntimeError: there are threads, which fork(2) does not copy.
    """
    poll_in_waiting_threads()
    import strongroom_cli.serve  # noqa: F401

    if threading.active_count() != 1:
        raise RuntimeError("something has started a thread, which fork(2) does not copy")
    gc.collect()
    gc.freeze()


def fork_from_here() -> tuple[int, socket.socket]:
    """Makes a fork server of this process as it is, which is not to have begun anything.

    Returns:
        Its id, and the socket to it.

    Raises:
        OSError: the system does not let it.
    """
    load()
    supervisor = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            child = os.fork()
        except OSError:
            ours.close()
            raise
        if child == 0:
            ours.close()
            _become_fork_server(supervisor)
            _serve(theirs)
        return child, ours


def _become_fork_server(supervisor: int) -> None:
    """Makes of this copy what a program would be that the supervisor had started."""
    os.setsid()  # a terminal's Ctrl-C is for the supervisor, which passes it on
    if not end_with(supervisor):
        os._exit(1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    setproctitle.setproctitle("strongroom fork-server")


def _serve(channel: socket.socket) -> NoReturn:
    """Runs a fork server, and whatever becomes of its copies; each ends here.

    What called this, in the process that was copied, has things to clear up that are not theirs.
    """
    status = 1
    try:
        with channel:
            arguments = run(channel)
        if arguments is not None:
            main(arguments, prog_name="strongroom")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    load()
    _serve(socket.socket(fileno=int(sys.argv[1])))

"""Whether Granian takes a certificate and a key, tried by a process of its own, since Granian aborts over others."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from granian._granian import CallbackScheduler, ListenerSpec, RSGIWorker, WorkerSignal

_SECONDS = 30.0


@contextlib.contextmanager
def held(text: bytes) -> Iterator[str]:
    """Yields a path at which this process and its children read a text, which is on no disk."""
    file = os.memfd_create("strongroom")
    try:
        os.write(file, text)
        os.set_inheritable(file, True)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)


async def check(certificate: str, key: str) -> None:
    """Tries them.

    Args:
        certificate: what `held` yielded.
        key: likewise.

    Raises:
        OSError: Granian does not take them.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        certificate,
        key,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=[int(path.rpartition("/")[2]) for path in (certificate, key)],
    )
    try:
        async with asyncio.timeout(_SECONDS):
            status = await process.wait()
    except BaseException:
        process.kill()
        raise
    if status != 0:
        raise OSError(
            "the HTTP server takes no such certificate or key; it knows keys of RSA, P-256, P-384 and Ed25519"
        )


def main(certificate: str, key: str) -> None:
    """Begins to serve with them, where nobody comes."""
    worker_of: Any = RSGIWorker  # their stubs are out of date
    scheduler_of: Any = CallbackScheduler
    tls: tuple[Any, ...] = (True, certificate, key, None, "tls1.2", None, [], False)
    sockets = (ListenerSpec("127.0.0.1", 0, 1), None)
    ones = (1, 1, 1, 30, 1)  # threads, their idle time, connections at once
    none = (None, None)
    worker = worker_of(1, sockets, None, *ones, "auto", *none, False, None, *tls, none)
    loop = asyncio.new_event_loop()
    worker.serve_async(scheduler_of(loop, main, None, *none), loop, WorkerSignal())


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # its threads know no other end

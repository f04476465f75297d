"""Requests on their way from Granian's threads into the event loop, each with its whole body.

Granian wakes the event loop when the head of a request is there, and again for the body that is then asked for: two
turns of the loop for each request that has one. Here the body is asked for at once, in Granian's own thread, and the
loop is woken when it has arrived. See docs/decisions/0007-hot-path.md for what that saves.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from granian._granian import CallbackScheduler, ListenerSpec, RSGIWorker
from granian._granian import SocketHolder as Holder
from granian.server.embed import AsyncWorker, Server

from strongroom_gateway.contract.bodies import MAX_BODY
from strongroom_gateway.http import trial

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_TICK_SECONDS = 1.0

# Longer than clients keep a connection that they do not use: Go's, for one, 90 seconds.
LEAVE_SECONDS = 120.0


class Connections:
    """Those that one worker of Granian's took. Once they are `leaving`, each answer is the last of its connection."""

    def __init__(self, listener: int) -> None:
        self.listener = listener  # the worker's, a file descriptor that it closes
        self.leaving = False
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()


# (what Granian knows of a request, what becomes of its body or None where that is not waited for, what it came over):
# answers it.
Answer = Callable[[Any, Any, Connections], Coroutine[Any, Any, None]]


class Arrivals:
    """Begins to answer requests once their bodies are there.

    Bodies of unknown length, and those that are too large, are left for the answer to read.

    Args:
        answer: answers one request. It must not raise.
        seconds: how long a body may take; what has not arrived by then is cancelled, up to a second late.
    """

    def __init__(self, answer: Answer, seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds
        # Those that began first are first, and all may take equally long: so they are in the order of their ends.
        # Granian's thread adds, the event loop removes: each in one step, while it holds Python's lock.
        self._ends: dict[Any, float] = {}

    def scheduler(self, loop: asyncio.AbstractEventLoop, connections: Connections) -> Any:
        """Returns what Granian calls, in a thread of its own, for each request whose head is there."""
        new: Any = CallbackScheduler  # whose stub says nothing of what it takes
        scheduler = new(loop, self._answer, None, None, None)
        context = scheduler._ctx

        def begin(watcher: Any, body: Any) -> None:
            watcher.taskref(loop.create_task(self._answer(watcher, body, connections)))

        def arrived(watcher: Any, body: Any) -> None:
            del self._ends[body]
            begin(watcher, body)

        def schedule(watcher: Any) -> None:
            scope = watcher.scope
            if scope.method in _WITH_BODY and _is_whole(scope.headers.get("content-length")):
                body = watcher.proto()
                self._ends[body] = loop.time() + self._seconds
                # Bodies are completed by the thread that this runs in, so it cannot have happened yet.
                body.add_done_callback(lambda body: arrived(watcher, body), context=context)
            else:
                loop.call_soon_threadsafe(begin, watcher, None, context=context)

        scheduler._schedule_fn = schedule
        return scheduler

    async def watch(self) -> None:
        """Cancels bodies that take too long. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            for body, end in list(self._ends.items()):
                if end > now:
                    break
                body.cancel()


def _is_whole(length: str | None) -> bool:
    """Returns whether a body has a length, and one that may be kept in memory."""
    return length is not None and length.isdigit() and int(length) <= MAX_BODY


class EmbeddedServer(Server):
    """Granian in the event loop, with another scheduler than its own, and a certificate that can be renewed.

    Granian reads a certificate when a worker begins. So a renewed one has a worker of its own, which takes the place
    of the one before.

    Args:
        arrivals: make the scheduler.
        options: of Granian's server.
    """

    def __init__(self, arrivals: Arrivals, **options: Any) -> None:
        super().__init__(None, **options)
        self._arrivals = arrivals
        self._listener = -1
        self._taking: Connections | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serves until it is stopped."""
        await self.serve(self._target())

    async def renew(self, certificate: bytes, key: bytes) -> None:
        """Takes connections with another certificate (PEM) from now on, and lets those that are open end.

        Each gets all answers that it waits for, and is ended with the next one, or when it was not used for long.

        Raises:
            OSError: Granian takes no such certificate or key. Then everything stays as it was.
        """
        before = self._taking
        if before is None:
            return  # it stopped, or has not begun
        with trial.held(certificate) as certificate_file, trial.held(key) as key_file:
            await trial.check(certificate_file, key_file)
            tls: Any = (True, certificate_file, key_file, *self.ssl_ctx[3:])
            self.ssl_ctx = tls
            worker = self._spawn_worker(0, self._target(), None)
            worker.start()  # type: ignore[no-untyped-call]
            await self._begun  # until then it may read the files
        self.wrks.insert(0, worker)
        _take_no_more(before)
        leaving = asyncio.create_task(self._leave(self.wrks[1]), name="http-leaving")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, worker: AsyncWorker) -> None:
        await asyncio.sleep(LEAVE_SECONDS)
        self.wrks.remove(worker)
        worker.terminate()  # type: ignore[no-untyped-call]

    def _target(self) -> Any:
        return AsyncWorker.wrap_target(self._work)  # type: ignore[no-untyped-call]

    def _init_shared_socket(self) -> None:
        """Makes a socket that all workers have: connections that wait in it are lost with none of them."""
        spec = ListenerSpec(self.bind_addr, self.bind_port, self.backlog)
        self._listener = spec.build().get_fd()

    def _spawn_worker(  # type: ignore[override]  # as in Granian's own class for this place
        self, idx: int, target: Any, callback_loader: Any
    ) -> AsyncWorker:
        self._taking = Connections(os.dup(self._listener))
        self._begun = self._taking.begun
        new: Any = Holder  # whose stub says nothing of what it takes
        self._shd = new(self._taking.listener, False, self.backlog)
        return super()._spawn_worker(idx, target, self._taking)

    async def _stop_workers(self) -> None:
        for leaving in self._leaving:
            leaving.cancel()
        os.close(self._listener)
        await super()._stop_workers()  # type: ignore[no-untyped-call]

    async def _work(
        self,
        number: int,
        stopping: Any,
        connections: Connections,
        sockets: Any,
        loop: asyncio.AbstractEventLoop,
        *settings: Any,
    ) -> None:
        """Does what Granian's own function of this place does, with the settings that it is given."""
        *before, _task, http, http1, http2, websockets, files, _log, tls, _scope = settings
        stopped = loop.create_future()
        stopping.add_cb(lambda: loop.call_soon_threadsafe(stopped.set_result, None))
        new: Any = RSGIWorker  # whose stub is out of date
        worker = new(
            number,
            sockets,
            None,
            *before,
            http,
            http1,
            http2,
            websockets,
            files,
            *tls,
            (None, None),
        )
        worker.serve_async(self._arrivals.scheduler(loop, connections), loop, stopping)
        connections.begun.set_result(None)
        await stopped


def _take_no_more(connections: Connections) -> None:
    """Lets a worker go on with the connections that it has, and take no others.

    Granian knows only to end a worker together with its connections, those included over which a request is just on
    its way. So its listening socket is exchanged for one at which nobody arrives.
    """
    connections.leaving = True
    with socket.socket() as nobody:
        nobody.setblocking(False)
        nobody.bind(("127.0.0.1", 0))
        nobody.listen(1)
        os.dup2(nobody.fileno(), connections.listener)

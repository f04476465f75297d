"""Requests on their way from Granian's threads into the event loop, each with its whole body.

Granian wakes the event loop when the head of a request is there, and again for the body that is then asked for: two
turns of the loop for each request that has one. Here the body is asked for at once, in Granian's own thread, and the
loop is woken when it has arrived. See docs/decisions/0007-hot-path.md for what that saves.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from granian._granian import CallbackScheduler, RSGIWorker
from granian.server.embed import AsyncWorker, Server

from strongroom_gateway.contract.decode import MAX_BODY

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_TICK_SECONDS = 1.0

# (what Granian knows of a request, what becomes of its body or None where that is not waited for): answers it.
Answer = Callable[[Any, Any], Coroutine[Any, Any, None]]


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

    def scheduler(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Returns what Granian calls, in a thread of its own, for each request whose head is there."""
        new: Any = CallbackScheduler  # whose stub says nothing of what it takes
        scheduler = new(loop, self._answer, None, None, None)
        context = scheduler._ctx

        def begin(watcher: Any, body: Any) -> None:
            watcher.taskref(loop.create_task(self._answer(watcher, body)))

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
    """Granian in the event loop, with another scheduler than its own.

    Args:
        arrivals: make it.
        options: of Granian's server.
    """

    def __init__(self, arrivals: Arrivals, **options: Any) -> None:
        super().__init__(None, **options)
        self._arrivals = arrivals

    async def run(self) -> None:
        """Serves until it is stopped."""
        await self.serve(AsyncWorker.wrap_target(self._work))  # type: ignore[no-untyped-call]

    async def _work(
        self,
        number: int,
        stopping: Any,
        _target: Any,
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
        worker.serve_async(self._arrivals.scheduler(loop), loop, stopping)
        await stopped

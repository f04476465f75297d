"""What every service gets from the process that hosts it, and gives to it."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.handlers import Caller, HandlerTable
from strongroom_runtime.storage import Store
from strongroom_runtime.tasks import end

log = logging.getLogger(__name__)


class Membership(Protocol):
    """Which processes there are, as far as one of them can tell."""

    @property
    def record(self) -> str:
        """What names this process among the members, another each time it becomes one; empty before that."""
        ...

    async def is_gone(self, record: str) -> bool:
        """Returns whether a member is one no more: its process is dead, stopped or cut off, or has another record.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        ...


class Alone:
    """Implements `Membership` where there are no members: of nobody it is known that it is gone."""

    record = ""

    async def is_gone(self, record: str) -> bool:
        """Returns that it is not."""
        return False


@dataclass(frozen=True, slots=True)
class Host:
    """Everything a service is built from.

    `peers` calls other services by name (`auth` calls `kv` to drop a cubbyhole); the composition root fills in
    those that the service's contract names.
    """

    store: Store
    clock: Clock = field(default_factory=SystemClock)
    peers: Mapping[str, Caller] = field(default_factory=dict)
    membership: Membership = field(default_factory=Alone)


class Service(Protocol):
    """A service: `build(host, config) -> Service` in its package's `service.py`."""

    @property
    def handlers(self) -> HandlerTable:
        """What it answers."""
        ...

    async def start(self) -> None:
        """Starts background work. Called once the store has keys, again after each unseal."""
        ...

    async def stop(self) -> None:
        """Ends background work, before its storage goes. Called at sealing, at shutdown, and where `start` failed."""
        ...


class BackgroundTasks:
    """The tasks of one service: started together, ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs a coroutine until it ends or `stop` is called."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancels everything and waits for it to end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            await end(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug, and nobody waits for the task: without this line its work would be missed by nobody.
            what = {"task": task.get_name(), "error": type(error).__name__}
            log.error("background work ended with an error", extra=what)

"""Knowing for certain that a server process is dead, and telling the cluster.

Writers wait for the lease of a member that does not answer, since it might live and serve from memory
(decision 0002). Whoever started it on the same machine can know better: each process has a file that is locked for as
long as it lives, whatever becomes of the supervisor, and the system lets go of a lock with the last of a process.
"""

import fcntl
import logging
import os
import secrets
from pathlib import Path

from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.members import bury

log = logging.getLogger(__name__)


class Living:
    """The files of the processes of one platform.

    Args:
        folder: for them alone; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name(self) -> tuple[str, int]:
        """Returns a name for a process that is about to start, and the descriptor to hand to it and then close."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = secrets.token_hex(8)
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return name, descriptor

    def any(self) -> bool:
        """Returns whether one of the processes lives."""
        return any(_locked(file) for file in self._folder.glob("*"))

    def dead(self) -> list[str]:
        """Returns the names of the processes that have ended and were not forgotten yet."""
        return [file.name for file in self._folder.glob("*") if not _locked(file)]

    def forget(self, name: str) -> None:
        """Forgets a process that is dead."""
        (self._folder / name).unlink(missing_ok=True)


async def bury_dead(client: EtcdClient, living: Living) -> None:
    """Ends the leases of the processes that are dead. Where etcd is away, they run out by themselves."""
    try:
        for name in living.dead():
            if await bury(client, name):
                log.info("the membership of a dead process was ended")
            living.forget(name)
    except ServiceError as error:
        log.info("the membership of a dead process runs out", extra={"reason": error.message})


def _locked(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False

"""Password hashes: bcrypt, in threads, since one takes tens of milliseconds.

Anybody can ask for one by a login. So they have threads of their own, which leave half of the machine to others, and
only so many wait.
"""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from strongroom_runtime.errors import Kind, ServiceError, invalid

T = TypeVar("T")

_MAX_BYTES = 72  # what bcrypt looks at
_DIGEST_CHARACTERS = 31  # behind the salt
# A hash that a client gives says itself what it costs: at 31 to check one takes days. The bounds are OpenBao's.
_GIVEN = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")
_CHEAPEST, _DEAREST = 5, 12
_WAITING = 100  # for each thread: some seconds


class Passwords:
    """Makes and checks hashes.

    Args:
        rounds: the cost, as a power of two.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        threads = max(1, (os.cpu_count() or 1) // 2)
        self._threads = ThreadPoolExecutor(threads, "bcrypt")
        self._most, self._under_way = threads * _WAITING, 0
        # Checked where there is no user, so that this costs what a wrong password costs. It is the hash of no
        # password that is known: to make a real one would take each start a fifth of a second.
        self._nobody = bcrypt.gensalt(rounds) + b"." * _DIGEST_CHARACTERS

    async def hash(self, password: str) -> bytes:
        """Returns the hash of a password.

        Raises:
            ServiceError: INVALID for one that is empty or longer than bcrypt sees; EXHAUSTED where too many wait.
        """
        text = password.encode()
        if not text:
            raise invalid("missing password")
        if len(text) > _MAX_BYTES:
            raise invalid(f"password: must not be longer than {_MAX_BYTES} bytes")
        return await self._run(lambda: bcrypt.hashpw(text, bcrypt.gensalt(self._rounds)))

    async def matches(self, password: str, known: bytes | None) -> bool:
        """Returns whether a password has a hash; None stands for a user that does not exist.

        Raises:
            ServiceError: EXHAUSTED where too many wait.
        """
        text = password.encode()[:_MAX_BYTES]
        found = await self._run(lambda: bcrypt.checkpw(text, known or self._nobody))
        return found and known is not None and len(password.encode()) <= _MAX_BYTES

    async def given(self, known: str) -> bytes:
        """Returns a hash that a client gave.

        Raises:
            ServiceError: INVALID where it is none, or costs too little or too much; EXHAUSTED where too many wait.
        """
        found = _GIVEN.fullmatch(known)
        if found is None:
            raise invalid("password_hash: must be a bcrypt hash")
        if not _CHEAPEST <= int(found[1]) <= _DEAREST:
            raise invalid(f"password_hash: must have a cost from {_CHEAPEST} to {_DEAREST}")
        try:
            await self._run(lambda: bcrypt.checkpw(b"", known.encode()))
        except ValueError:
            raise invalid("password_hash: must be a bcrypt hash") from None
        return known.encode()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._most:
            raise ServiceError(Kind.EXHAUSTED, "too many logins at once; try again")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1

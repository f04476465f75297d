"""Password hashes: bcrypt, in threads, since one takes tens of milliseconds."""

import asyncio

import bcrypt

from strongroom_runtime.errors import invalid

_MAX_BYTES = 72  # what bcrypt looks at


class Passwords:
    """Makes and checks hashes.

    Args:
        rounds: the cost, as a power of two.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        # Checked where there is no user, so that this costs what a wrong password costs.
        self._nobody = bcrypt.hashpw(bcrypt.gensalt(rounds), bcrypt.gensalt(rounds))

    async def hash(self, password: str) -> bytes:
        """Returns the hash of a password.

        Raises:
            ServiceError: INVALID for one that is empty or longer than bcrypt sees.
        """
        text = password.encode()
        if not text:
            raise invalid("missing password")
        if len(text) > _MAX_BYTES:
            raise invalid(f"password: must not be longer than {_MAX_BYTES} bytes")
        return await asyncio.to_thread(bcrypt.hashpw, text, bcrypt.gensalt(self._rounds))

    async def matches(self, password: str, known: bytes | None) -> bool:
        """Returns whether a password has a hash; None stands for a user that does not exist."""
        text = password.encode()[:_MAX_BYTES]
        found = await asyncio.to_thread(bcrypt.checkpw, text, known or self._nobody)
        return found and known is not None and len(password.encode()) <= _MAX_BYTES

    @staticmethod
    def given(known: str) -> bytes:
        """Returns a hash that a client gave.

        Raises:
            ServiceError: INVALID where it is none.
        """
        try:
            bcrypt.checkpw(b"", known.encode())
        except ValueError:
            raise invalid("password_hash: must be a bcrypt hash") from None
        return known.encode()

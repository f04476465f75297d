"""Whether the numbers of an RSA key belong together, found out in a process of its own.

The check holds the interpreter for up to a third of a second; in the service's own process every other request would
wait.
"""

import asyncio
import sys

from strongroom_runtime.errors import Kind, ServiceError, invalid

_SECONDS = 30.0
_AT_ONCE = 1


class RsaCheck:
    """Checks keys that came from outside, a few at a time: whoever imports many waits."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, keys: list[bytes]) -> None:
        """Raises where one of some RSA private keys (PKCS #8 DER) is not sound.

        Raises:
            ServiceError: INVALID; UNAVAILABLE where it could not be found out.
        """
        for key in keys:
            async with self._turn:
                await _check(key)


async def _check(key: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        "import sys; from cryptography.hazmat.primitives.serialization import load_der_private_key as load;"
        "load(sys.stdin.buffer.read(), None)",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            await process.communicate(key)
    except TimeoutError:
        raise ServiceError(Kind.UNAVAILABLE, "the key could not be checked in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise invalid("the RSA key is not sound: its numbers do not belong together")

"""Makes root tokens usable: they are the auth service's, which may not be there yet."""

import asyncio
import contextlib
import uuid

from strongroom.auth.v1 import gate_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import Caller
from strongroom_runtime.repeated import Repeated
from strongroom_seal.storage import SealStore

ADOPT = "/strongroom.auth.v1.TokenGateService/AdoptRootToken"
_RETRY_SECONDS = 0.2


class Adoption:
    """Hands root tokens over, at once or as soon as the auth service takes them."""

    def __init__(self, store: SealStore, auth: Caller) -> None:
        self._store = store
        self._auth = auth
        self._task: asyncio.Task[None] | None = None

    def begin(self, root: bytes) -> None:
        """Starts to hand over the token that an initialisation promised, if that is still open."""
        self.cancel()
        self._task = asyncio.create_task(self._keep_promise(root), name="adopt-root-token")

    def cancel(self) -> None:
        """Stops for now; the promise stays."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def wait(self, seconds: float) -> None:
        """Returns when the promise is kept, or after a while."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(self._task), seconds)

    async def adopt(self, token: str) -> None:
        """Makes a token usable; may be repeated.

        Raises:
            ServiceError: as the auth service says.
        """
        request = gate_pb2.AdoptRootTokenRequest(token=token)
        await self._auth.call(ADOPT, request, RequestContext(str(uuid.uuid4()), caller="seal"))

    async def _keep_promise(self, root: bytes) -> None:
        work = Repeated("the adoption of a root token")
        while True:
            with work.turn():
                promised = await self._store.promised(root)
                if promised is None:
                    return
                await self.adopt(promised[0])
                await self._store.kept_promise(promised[1])
                continue
            await asyncio.sleep(_RETRY_SECONDS)

"""What is left to do after a token ended: every step may be repeated, by any replica, after any crash."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from strongroom_auth.tokens.tokens import Tokens
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.storage import ConflictError

log = logging.getLogger(__name__)

# (token id): removes what belonged to a token elsewhere; raises ServiceError where it could not yet.
Listener = Callable[[str], Awaitable[None]]


class Cleanup:
    """Removes tokens whose time is over, descendants of revoked ones, and what belonged to them.

    None of it matters for validity: a token is invalid from the moment its time is over, or it or an ancestor is
    revoked. It matters for what tokens obtained, and for room.
    """

    def __init__(self, tokens: Tokens, listeners: Sequence[Listener], seconds: float) -> None:
        self._tokens = tokens
        self._records = tokens.records
        self._listeners = listeners
        self._seconds = seconds

    async def run(self) -> None:
        """Works until cancelled; what fails is tried again."""
        while True:
            try:
                busy = await self.step()
            except ServiceError as error:
                log.info("cleaning waits", extra={"kind": error.kind.value})
                busy = False
            # Replicas that started together should not do the same work at the same moment for ever.
            await asyncio.sleep(0 if busy else self._seconds * random.uniform(0.7, 1.3))  # noqa: S311

    async def step(self) -> bool:
        """Does a page of work; returns whether there may be more at once."""
        done = False
        for token_id in await self._records.due(self._tokens.now()):
            done = await self._expire(token_id) or done
        for token_id, parent in await self._records.jobs():
            done = await self._clean(token_id, parent) or done
        return done

    async def _expire(self, token_id: str) -> bool:
        found = await self._records.get(token_id)
        if found is None or not found[0].expires or found[0].expires > self._tokens.now():
            return False  # renewed, or another replica was faster
        with contextlib.suppress(ConflictError):
            await self._records.remove(*found)
            return True
        return False

    async def _clean(self, token_id: str, parent: str) -> bool:
        found = await self._records.get(token_id)
        severed = found is not None and found[0].severed
        if not severed:
            while children := await self._records.children(token_id):
                for child in children:
                    await self._tokens.revoke(child)
                    await self._records.forget_index(child, parent=token_id)
        try:
            for listener in self._listeners:
                await listener(token_id)
        except ServiceError as error:
            log.warning(
                "what a token obtained is not yet removed", extra={"kind": error.kind.value}
            )
            return False
        if parent and not severed:
            await self._records.forget_index(token_id, parent=parent)
            await self._drop_if_childless(parent)
        if severed:
            await self._drop_if_childless(token_id)
        await self._records.finish_job(token_id)
        return True

    async def _drop_if_childless(self, token_id: str) -> None:
        found = await self._records.get(token_id)
        if found is None or not found[0].severed or await self._records.children(token_id):
            return
        with contextlib.suppress(ConflictError):
            await self._records.drop_severed(token_id, found[1])
            if found[0].parent:
                await self._records.forget_index(token_id, parent=found[0].parent)

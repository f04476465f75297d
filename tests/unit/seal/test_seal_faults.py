"""The seal when the store fails, stalls or is unsure, and when processes die between two steps."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import (
    ONE,
    RECOVERY,
    TWO_OF_THREE,
    Auth,
    processes,
    refused,
    unseal,
    until,
)

from strongroom_runtime.barrier import BarrierCodec, KeyHolder
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import ConflictError, Entry, Path, Transaction
from strongroom_seal.storage import KEYRING, ROOT, SEALED


class FaultyStore(MemoryStore):
    """Fails while `down`, or reads of `failing` only; holds one read of `stalled` until `go`; if `unsure`, commits
    and then says that it does not know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.unsure = False
        self.failing: Path | None = None
        self.failed = asyncio.Event()
        self.stalled: Path | None = None
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def get(self, path: Path, *, linearizable: bool = False) -> Entry | None:
        self._check()
        if path == self.failing:
            self.failed.set()
            raise ServiceError(Kind.UNAVAILABLE, "away")
        entry = await super().get(path)
        if path == self.stalled:
            self.stalled = None
            self.reached.set()
            await self.go.wait()
        return entry

    async def commit(self, transaction: Transaction) -> int:
        self._check()
        revision = await super().commit(transaction)
        if self.unsure:
            self.unsure = False
            raise ServiceError(Kind.UNAVAILABLE, "the outcome is not known")
        return revision

    def _check(self) -> None:
        if self.down:
            raise ServiceError(Kind.UNAVAILABLE, "down")


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
async def process(store: FaultyStore, auth: Auth, tmp_path: FilePath) -> AsyncIterator[Any]:
    async with processes(store, auth, tmp_path) as start:
        yield start
        store.down = False


async def test_keys_do_not_come_back_after_a_sealing(process: Any, store: FaultyStore) -> None:
    """A ring that was being fetched when the seal was closed must not be put in memory."""
    one, other = await process(True), await process(True)
    await one("Initialize", **RECOVERY)
    await until(lambda: not other.sealed)
    store.stalled = KEYRING
    rotation = asyncio.create_task(one("Rotate"))
    await store.reached.wait()
    await one("Seal")
    store.go.set()
    await rotation
    assert one.sealed
    await until(lambda: other.sealed)
    assert one.sealed


async def test_an_unseal_that_a_sealing_overtakes_stays_closed(
    process: Any, store: FaultyStore
) -> None:
    one = await process()
    made = await one("Initialize", **ONE)
    store.stalled = KEYRING
    unseal = asyncio.create_task(one("Unseal", key=made.keys[0]))
    await store.reached.wait()
    await one("Seal")
    store.go.set()
    with pytest.raises(ServiceError) as caught:
        await unseal
    assert caught.value.kind is Kind.SEALED
    assert one.sealed
    assert not (await one("Unseal", key=made.keys[0])).status.sealed


async def test_a_process_can_be_sealed_without_the_store(process: Any, store: FaultyStore) -> None:
    one = await process(True)
    await one("Initialize", **RECOVERY)
    store.down = True
    with pytest.raises(ServiceError) as caught:
        await one("Seal")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert one.sealed


async def test_a_store_that_was_away_does_not_end_the_watching(
    process: Any, store: FaultyStore
) -> None:
    one, other = await process(True), await process(True)
    await one("Initialize", **RECOVERY)
    await until(lambda: not other.sealed)
    store.failing = SEALED  # which is looked at by those who follow, not by a rotation
    await one("Rotate")
    await store.failed.wait()
    store.failing = None
    await one("Seal")
    await until(lambda: other.sealed)


async def test_shares_are_not_lost_where_the_commit_is_in_doubt(
    process: Any, store: FaultyStore
) -> None:
    one = await process()
    store.unsure = True
    made = await one("Initialize", **ONE)
    assert not (await one("Unseal", key=made.keys[0])).status.sealed


async def test_a_commit_that_was_not_applied_is_done_again(
    process: Any, store: FaultyStore
) -> None:
    one = await process()
    store.fail_next_commit = ServiceError(Kind.UNAVAILABLE, "gone")
    made = await one("Initialize", **ONE)
    assert not (await one("Unseal", key=made.keys[0])).status.sealed


async def test_new_shares_are_not_lost_where_the_commit_is_in_doubt(
    process: Any, store: FaultyStore
) -> None:
    one = await process()
    made = await one("Initialize", **ONE)
    await one("Unseal", key=made.keys[0])
    started = (await one("StartRekey", **ONE)).status
    store.unsure = True
    done = await one("UpdateRekey", key=made.keys[0], nonce=started.nonce)
    assert not one.sealed
    restarted = await process()
    assert not (await restarted("Unseal", key=done.keys[0])).status.sealed


async def test_new_shares_are_not_lost_with_who_gave_the_last_old_one(
    process: Any, store: FaultyStore
) -> None:
    """Its request may end in the middle: then nobody would have shares of the key that counts from then on."""
    one = await process()
    old = (await one("Initialize", **TWO_OF_THREE)).keys
    await unseal(one, old[:2])
    nonce = (await one("StartRekey", **ONE)).status.nonce
    await one("UpdateRekey", key=old[0], nonce=nonce)
    commit, committed, go = store.commit, asyncio.Event(), asyncio.Event()

    async def slow(transaction: Transaction) -> int:
        revision = await commit(transaction)
        if ROOT in transaction.puts:
            committed.set()
            await go.wait()
        return revision

    store.commit = slow  # type: ignore[method-assign]
    last = {"key": old[1], "nonce": nonce}
    asked = asyncio.create_task(one("UpdateRekey", **last))
    await committed.wait()
    asked.cancel()
    await asyncio.wait({asked})
    assert asked.cancelled()
    go.set()
    again = await one("UpdateRekey", **last)
    assert (again.complete, again.nonce, len(again.keys)) == (True, nonce, 1)
    assert list((await one("UpdateRekey", **last)).keys) == list(again.keys)
    assert not one.sealed
    other = await process()
    await unseal(other, again.keys)
    # Who has another share, or knows the nonce alone, is told nothing; nor is anybody later.
    await refused(one("UpdateRekey", key=old[0], nonce=nonce), "no rekey in progress")
    await one("Seal")
    await unseal(one, again.keys)
    await refused(one("UpdateRekey", **last), "no rekey in progress")


async def test_new_shares_that_were_given_up_are_not_told_again(process: Any) -> None:
    one = await process()
    (old,) = (await one("Initialize", **ONE)).keys
    await unseal(one, [old])
    nonce = (await one("StartRekey", require_verification=True, **ONE)).status.nonce
    first = await one("UpdateRekey", key=old, nonce=nonce)
    assert first.keys
    assert await one("UpdateRekey", key=old, nonce=nonce) == first
    await one("CancelRekey")
    await refused(one("UpdateRekey", key=old, nonce=nonce), "no rekey in progress")


async def test_the_first_root_token_survives_a_crash_before_auth_had_it(
    process: Any, auth: Auth
) -> None:
    auth.away = True
    made = await (await process())("Initialize", **ONE)
    auth.away = False
    restarted = await process()
    await restarted("Unseal", key=made.keys[0])
    await until(lambda: bool(auth.tokens))
    assert auth.tokens == [made.root_token]


async def test_a_static_process_opens_when_another_initialises(process: Any) -> None:
    waiting, first = await process(True), await process(True)
    assert waiting.sealed
    await first("Initialize", **RECOVERY)
    await until(lambda: not waiting.sealed)
    await first("Seal")
    await until(lambda: waiting.sealed)
    made = await process(True)  # a restart opens again
    assert not made.sealed
    assert waiting.sealed


async def test_a_sealing_that_is_over_does_not_close_what_was_opened_since(process: Any) -> None:
    one = await process()
    made = await one("Initialize", **ONE)
    for _ in range(20):
        await one("Unseal", key=made.keys[0])
        await one("Seal")
        await one("Unseal", key=made.keys[0])
        await asyncio.sleep(0)
        assert not one.sealed
        await one("Rotate")


async def test_a_replica_with_the_old_ring_reads_what_the_new_term_wrote(process: Any) -> None:
    one = await process(True)
    await one("Initialize", **RECOVERY)
    seal = one.service.seal
    behind = BarrierCodec("kv", KeyHolder(seal.ring.ring_for("kv")))
    old = behind.seal(b"kv/a", b"old")
    await one("Rotate")
    ahead = BarrierCodec("kv", KeyHolder(seal.ring.ring_for("kv")))
    new = ahead.seal(b"kv/a", b"new")
    assert new[:5] != old[:5]
    assert (ahead.open(b"kv/a", old), behind.open(b"kv/a", new)) == (b"old", b"new")
    stranger = BarrierCodec("kv", KeyHolder(seal.ring.ring_for("auth")))
    with pytest.raises(ServiceError, match="does not open"):
        stranger.open(b"kv/a", new)


async def test_a_rotation_tries_again_after_another_one(process: Any, store: FaultyStore) -> None:
    one = await process(True)
    await one("Initialize", **RECOVERY)
    store.fail_next_commit = ConflictError()
    await one("Rotate")
    assert (await one("ReadKeyStatus")).term == 2

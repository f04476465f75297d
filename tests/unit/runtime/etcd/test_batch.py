"""Transactions that share a round trip keep their own comparisons and their own outcome."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.batch import Batcher, Outcome
from strongroom_runtime.etcd.change import Change
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.server import EmbeddedEtcd


class Counting:
    """Passes transactions on to etcd and counts them."""

    def __init__(self, client: EtcdClient) -> None:
        self.client = client
        self.sent: list[etcd_pb2.TxnRequest] = []
        self.fail = False
        self.answers_early = False
        self.may_log, self.loses = asyncio.Event(), False

    async def answer(self, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnResponse:
        self.sent.append(request)
        if self.fail:
            raise ServiceError(Kind.UNAVAILABLE, "etcd did not answer")
        return await self.client.transaction(request)

    async def logged(self, response: etcd_pb2.TxnResponse) -> None:
        await self.may_log.wait()
        if self.loses:
            raise ServiceError(Kind.UNAVAILABLE, "etcd was started again during a transaction")


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[Counting]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    client = EtcdClient(server.config)
    yield Counting(client)
    await client.close()
    await server.stop()


def put(key: bytes, value: bytes = b"x", expect: dict[bytes, int] | None = None) -> Change:
    return Change(expect=expect or {}, puts={key: value})


def remove(key: bytes) -> Change:
    return Change(deletes=[key])


async def run_all(batcher: Batcher, *changes: Change) -> list[Outcome]:
    return list(await asyncio.gather(*(batcher.run(change) for change in changes)))


async def under_way(batcher: Batcher, etcd: Counting, change: Change) -> asyncio.Future[Outcome]:
    """Returns what a transaction comes to, once it is on its way to etcd."""
    future = batcher.run(change)
    while not etcd.sent:
        await asyncio.sleep(0)
    return future


async def test_what_is_ready_at_once_goes_together(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    outcomes = await run_all(batcher, *(put(b"k%d" % n) for n in range(50)))
    assert len(etcd.sent) == 1
    assert all(outcome.succeeded and outcome.changed for outcome in outcomes)
    found = await etcd.client.range(b"k", b"l")
    assert len(found.kvs) == 50
    assert {kv.key: kv.mod_revision for kv in found.kvs} == {
        b"k%d" % n: outcome.revision for n, outcome in enumerate(outcomes)
    }


async def test_enough_that_wait_go_beside_what_is_under_way(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    first = await under_way(batcher, etcd, put(b"first"))
    waiting = [batcher.run(put(b"k%d" % n)) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(etcd.sent) == 2
    assert not first.done()
    assert all(outcome.succeeded for outcome in await asyncio.gather(first, *waiting))
    assert len(etcd.sent) == 2


async def test_what_is_on_its_way_goes_along_with_what_waits(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    first = await under_way(batcher, etcd, put(b"first"))

    async def write_after_it() -> None:
        await first
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await batcher.run(put(b"after"))

    after = asyncio.create_task(write_after_it())
    await asyncio.gather(batcher.run(put(b"waits")), after)
    assert [len(sent.success) - 1 for sent in etcd.sent] == [1, 2]


async def test_one_that_fails_fails_alone(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    requests = [put(b"first"), *(put(b"k%d" % n, expect={b"k%d" % n: n}) for n in range(3))]
    outcomes = await run_all(batcher, *requests)
    assert [outcome.succeeded for outcome in outcomes] == [True, True, False, False]
    assert [outcome.changed for outcome in outcomes] == [True, True, False, False]
    assert [kv.key for kv in (await etcd.client.range(b"k", b"l")).kvs] == [b"k0"]


async def test_check_and_set_of_one_key_has_one_winner(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    outcomes = await run_all(
        batcher, put(b"first"), *(put(b"a", b"%d" % n, {b"a": 0}) for n in range(30))
    )
    assert sum(outcome.succeeded for outcome in outcomes[1:]) == 1


async def test_two_that_read_what_the_other_writes_do_not_both_succeed(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    _, one, two = await run_all(
        batcher, put(b"first"), put(b"a", expect={b"b": 0}), put(b"b", expect={b"a": 0})
    )
    assert [one.succeeded, two.succeeded] == [True, False]


async def test_a_range_that_is_removed_goes_alone(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    below = Change(ranges=[(b"m/", b"m0")])
    await run_all(batcher, put(b"first"), put(b"m/1"), below, put(b"m/2"))
    assert [kv.key for kv in (await etcd.client.range(b"m/", b"m0")).kvs] in ([], [b"m/2"])
    assert [len(sent.success) - 1 for sent in etcd.sent] == [3, 1]
    outcome = await batcher.run(remove(b"nothing"))
    assert outcome.succeeded
    assert not outcome.changed


async def test_large_ones_and_many_stay_within_the_bounds_of_etcd(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    wide = Change(puts={b"w%d" % n: b"x" for n in range(120)})
    requests = [put(b"large%d" % n, os.urandom(400_000)) for n in range(6)]
    requests += [put(b"k%d" % n) for n in range(300)]
    outcomes = await run_all(batcher, *requests, wide)
    assert all(outcome.succeeded for outcome in outcomes)
    assert len((await etcd.client.range(b"w", b"x")).kvs) == 120
    assert len((await etcd.client.range(b"k", b"l")).kvs) == 300


async def test_all_learn_that_etcd_did_not_answer_and_the_next_go_on(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    etcd.fail = True
    results = await asyncio.gather(
        *(batcher.run(put(b"k%d" % n)) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(r, ServiceError) and r.kind is Kind.UNAVAILABLE for r in results)
    etcd.fail = False
    assert (await batcher.run(put(b"k"))).succeeded


async def test_a_caller_that_goes_away_takes_nobody_along(etcd: Counting) -> None:
    batcher = Batcher(etcd)
    tasks = [asyncio.ensure_future(batcher.run(put(b"k%d" % n))) for n in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[4].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, r in enumerate(results) if isinstance(r, asyncio.CancelledError)] == [0, 4]
    assert all(r.succeeded for r in results if isinstance(r, Outcome))
    # What was taken is carried out all the same.
    assert len((await etcd.client.range(b"k", b"l")).kvs) == 10


async def test_outcomes_are_those_of_some_order(etcd: Counting) -> None:
    """Counters moved by many check-and-set writers at once end at the number of successes."""
    batcher = Batcher(etcd)
    rng = random.Random(7)
    won = dict.fromkeys((b"c0", b"c1", b"c2"), 0)

    async def move(key: bytes, other: bytes) -> None:
        for _ in range(15):
            found = [(await etcd.client.range(name)).kvs for name in (key, other)]
            value = int(found[0][0].value) if found[0] else 0
            expect = {
                name: kvs[0].mod_revision if kvs else 0
                for name, kvs in zip((key, other), found, strict=True)
            }
            outcome = await batcher.run(put(key, b"%d" % (value + 1), expect))
            won[key] += outcome.succeeded

    names = sorted(won)
    await asyncio.gather(*(move(*rng.sample(names, 2)) for _ in range(8)))
    for name in names:
        found = (await etcd.client.range(name)).kvs
        assert (int(found[0].value) if found else 0) == won[name]


@pytest.mark.parametrize("loses", [False, True])
async def test_an_outcome_waits_until_it_is_logged_and_no_request_does(
    etcd: Counting, loses: bool
) -> None:
    etcd.answers_early, etcd.loses = True, loses
    batcher = Batcher(etcd)
    outcomes = []
    async with asyncio.timeout(60):
        for count, key in enumerate((b"a", b"b"), 1):
            outcomes.append(batcher.run(put(key)))
            while len(etcd.sent) < count:
                await asyncio.sleep(0.01)
    first, second = outcomes
    await asyncio.sleep(0.1)
    assert not first.done() and not second.done()
    etcd.may_log.set()
    for future in (first, second):
        if loses:
            with pytest.raises(ServiceError, match="started again"):
                await future
        else:
            assert (await future).succeeded

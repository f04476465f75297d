"""Terms: when they begin by themselves, what comes of them for each service."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import RECOVERY, Auth, Process

from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_seal.config import Config
from strongroom_seal.domain.keys import MAX_OPERATIONS, MIN_INTERVAL, RotationPolicy, new_ring
from strongroom_seal.rotation import Rotation


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def process(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Process]:
    """An unsealed process."""
    key = tmp_path / "seal.key"
    key.write_bytes(os.urandom(32))
    one = Process(MemoryStore(), Auth(), Config(static_key_file=key), clock)
    await one.service.start()
    await one("Initialize", **RECOVERY)
    yield one
    await one.service.stop()


async def test_the_policy_is_read_back_and_changed_field_by_field(process: Process) -> None:
    policy = await process("ReadRotationPolicy")
    assert (policy.enabled, policy.max_operations, policy.interval) == (True, MAX_OPERATIONS, 0)
    await process("WriteRotationPolicy", interval=MIN_INTERVAL)
    await process("WriteRotationPolicy", max_operations=2_000_000)
    await process("WriteRotationPolicy", enabled=False)
    policy = await process("ReadRotationPolicy")
    assert (policy.enabled, policy.max_operations, policy.interval) == (
        False,
        2_000_000,
        MIN_INTERVAL,
    )


@pytest.mark.parametrize(
    "fields",
    [{"max_operations": 999_999}, {"max_operations": MAX_OPERATIONS + 1}, {"interval": 3600}],
)
async def test_a_policy_out_of_bounds_is_refused(process: Process, fields: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match=next(iter(fields))) as caught:
        await process("WriteRotationPolicy", **fields)
    assert caught.value.kind is Kind.INVALID
    assert (await process("ReadRotationPolicy")).max_operations == MAX_OPERATIONS


async def test_a_term_ends_when_its_interval_is_over(process: Process, clock: ManualClock) -> None:
    rotation = Rotation(process.service.seal, clock)
    await process("WriteRotationPolicy", interval=MIN_INTERVAL)
    clock.advance(MIN_INTERVAL - 1)
    await rotation.rotate_if_due()
    assert (await process("ReadKeyStatus")).term == 1
    clock.advance(1)
    await rotation.rotate_if_due()
    await rotation.rotate_if_due()  # as another process does at the same time
    assert (await process("ReadKeyStatus")).term == 2


async def test_usage_counts_the_changes_of_the_term(process: Process) -> None:
    before = (await process("ReadKeyStatus")).encryptions
    await process("WriteRotationPolicy", interval=0, max_operations=3_000_000)
    assert (await process("ReadKeyStatus")).encryptions > before
    await process("Rotate")
    assert (await process("ReadKeyStatus")).encryptions <= 1


def test_a_term_ends_when_it_was_used_enough() -> None:
    ring = new_ring(now=0.0, revision=100)
    assert not ring.is_due(1e12, 100 + MAX_OPERATIONS - 1)
    assert ring.is_due(0.0, 100 + MAX_OPERATIONS)
    assert ring.operations(50) == 0


def test_a_policy_that_is_off_ends_no_term() -> None:
    ring = new_ring(now=0.0, revision=0)
    off = type(ring)(
        ring.terms, ring.name_secret, ring.active, RotationPolicy(False, 1_000_000, MIN_INTERVAL)
    )
    assert not off.is_due(1e12, 1 << 60)


@given(st.integers(0, 12))
def test_a_rotation_keeps_old_terms_and_uses_the_one_known_before(rotations: int) -> None:
    ring = new_ring(0.0, 0)
    for count in range(rotations):
        after = ring.rotated(float(count), count)
        assert after.active_term == ring.active_term + 1
        before, now = ring.keys_for("kv"), after.keys_for("kv")
        assert before[0].items() <= now[0].items()  # the next term's key was handed out already
        assert before[1] == now[1]
        assert max(after.terms) == after.active_term + 1
        ring = after


def test_a_ring_of_an_earlier_version_is_rotated_too() -> None:
    ring = new_ring(0.0, 0)
    old = type(ring)({1: ring.terms[1]}, ring.name_secret)
    assert old.active_term == 1
    rotated = old.rotated(1.0, 1)
    assert (rotated.active_term, set(rotated.terms)) == (2, {1, 2, 3})


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), min_size=2, unique=True))
def test_no_two_services_share_a_key(services: list[str]) -> None:
    ring = new_ring(0.0, 0).rotated(1.0, 1)
    found = [key for name in services for key in ring.keys_for(name)[0].values()]
    found += [ring.keys_for(name)[1] for name in services]
    assert len(set(found)) == len(services) * (len(ring.terms) + 1)
    assert not {term.key for term in ring.terms.values()} & set(found)

"""New shares that take effect only when people have shown them, and root keys that are replaced without shares."""

import asyncio
import os
from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import TWO_OF_THREE, Auth, Process, refused, unseal, until

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Transaction

VERIFIED = {**TWO_OF_THREE, "require_verification": True}


class UnsureStore(MemoryStore):
    """If `unsure`, commits and then says that it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.unsure = False

    async def commit(self, transaction: Transaction) -> int:
        revision = await super().commit(transaction)
        if self.unsure:
            self.unsure = False
            raise ServiceError(Kind.UNAVAILABLE, "the outcome is not known")
        return revision


@pytest.fixture
def store() -> UnsureStore:
    return UnsureStore()


async def made_anew(process: Process, keys: list[str]) -> Any:
    """Returns the answer that has the new shares, which wait for their verification."""
    nonce = (await process("StartRekey", **VERIFIED)).status.nonce
    for key in keys[:2]:
        answer = await process("UpdateRekey", key=key, nonce=nonce)
    return answer


async def test_new_shares_take_effect_when_they_were_verified(
    process: Any, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, other, keys = unsealed
    await refused(one("ReadRekeyVerification"), "no rekey configuration")
    await refused(one("VerifyRekey", key=keys[0], nonce="n"), "no rekey verification")
    started = (await one("StartRekey", **VERIFIED)).status
    assert (started.verification_required, started.verification_nonce) == (True, "")
    assert not (await one("ReadRekeyVerification")).status.started
    await refused(one("VerifyRekey", key=keys[0], nonce=""), "no rekey verification")
    await one("UpdateRekey", key=keys[0], nonce=started.nonce)
    new = await other("UpdateRekey", key=keys[1], nonce=started.nonce)
    assert (new.complete, new.started, new.verification_required, len(new.keys)) == (
        True,
        True,
        True,
        3,
    )
    pending = (await one("ReadRekey")).status
    assert (pending.started, pending.verification_nonce) == (True, new.verification_nonce)
    waiting = (await one("ReadRekeyVerification")).status
    assert (waiting.started, waiting.nonce) == (True, new.verification_nonce)
    assert (waiting.t, waiting.n, waiting.progress) == (2, 3, 0)
    for call in (
        one("UpdateRekey", key=keys[2], nonce=started.nonce),
        one("VerifyRekey", key=new.keys[0], nonce=started.nonce),
        one("StartRekey", **TWO_OF_THREE),
    ):
        await refused(call, "must be verified|nonce|already in progress")
    restarted = await process()
    await unseal(restarted, keys[:2])  # the old shares still count
    first = await restarted("VerifyRekey", key=new.keys[2], nonce=new.verification_nonce)
    again = await one("VerifyRekey", key=new.keys[2], nonce=new.verification_nonce)
    assert (first.progress, again.progress, again.complete) == (1, 1, False)
    done = await one("VerifyRekey", key=new.keys[0], nonce=new.verification_nonce)
    assert (done.complete, done.started, done.nonce) == (True, False, new.verification_nonce)
    assert not (await one("ReadRekey")).status.started
    await until(lambda: other.sealed)
    await unseal(other, new.keys[1:])
    await restarted.service.stop()
    fresh = await process()
    await fresh("Unseal", key=keys[0])
    await refused(fresh("Unseal", key=keys[1]), "do not make the key")


async def test_wrong_new_shares_begin_the_verification_anew(
    unsealed: tuple[Process, Process, list[str]],
) -> None:
    one, other, keys = unsealed
    new = await made_anew(one, keys)
    nonce = new.verification_nonce
    await one("VerifyRekey", key=new.keys[0], nonce=nonce)
    # One of the old shares, and one that shares its place with another, which can belong to none.
    for wrong in (keys[1], (os.urandom(32) + bytes.fromhex(new.keys[0])[32:]).hex()):
        await refused(one("VerifyRekey", key=wrong, nonce=nonce), "begins anew")
        state = (await other("ReadRekeyVerification")).status
        assert (state.started, state.progress) == (True, 0)
        assert state.nonce != nonce
        nonce = state.nonce
        await one("VerifyRekey", key=new.keys[0], nonce=nonce)
    restarted = (await one("RestartRekeyVerification")).status
    assert (restarted.started, restarted.progress) == (True, 0)
    assert restarted.nonce != nonce
    await one("VerifyRekey", key=new.keys[0], nonce=restarted.nonce)
    done = await one("VerifyRekey", key=new.keys[1], nonce=restarted.nonce)
    assert done.complete
    await refused(one("RestartRekeyVerification"), "no rekey configuration")


async def test_a_change_is_given_up_before_its_verification(
    process: Any, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, other, keys = unsealed
    new = await made_anew(one, keys)
    await other("CancelRekey")
    call = one("VerifyRekey", key=new.keys[0], nonce=new.verification_nonce)
    await refused(call, "no rekey verification")
    await unseal(await process(), keys[1:])
    assert len((await made_anew(one, keys)).keys) == 3


async def test_new_shares_survive_that_all_processes_end(
    process: Any, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, other, keys = unsealed
    new = await made_anew(one, keys)
    await one("VerifyRekey", key=new.keys[0], nonce=new.verification_nonce)
    for each in (one, other):
        await each.service.stop()
    later = await process()
    await unseal(later, keys[:2])
    assert (await later("ReadRekeyVerification")).status.progress == 1
    assert (await later("VerifyRekey", key=new.keys[1], nonce=new.verification_nonce)).complete


async def test_the_last_share_counts_once_and_surely(
    process: Any, store: UnsureStore, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, _, keys = unsealed
    new = await made_anew(one, keys)
    nonce = new.verification_nonce
    await one("VerifyRekey", key=new.keys[0], nonce=nonce)
    store.unsure = True  # the store loses the answer to the commit that replaces the root key
    done = await one("VerifyRekey", key=new.keys[1], nonce=nonce)
    assert done.complete
    await unseal(await process(), new.keys[1:])


async def test_two_last_new_shares_at_once_replace_the_old_ones_once(
    process: Any, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, other, keys = unsealed
    new = await made_anew(one, keys)
    nonce = new.verification_nonce
    await one("VerifyRekey", key=new.keys[0], nonce=nonce)
    results = await asyncio.gather(
        one("VerifyRekey", key=new.keys[1], nonce=nonce),
        other("VerifyRekey", key=new.keys[2], nonce=nonce),
        return_exceptions=True,
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    await unseal(await process(), new.keys[1:])


async def test_a_recovery_key_takes_effect_when_it_was_verified(process: Any) -> None:
    one, other = await process(True), await process(True)
    old = (await one("Initialize", recovery_shares=1, recovery_threshold=1)).recovery_keys[0]
    nonce = (await one("StartRekey", **VERIFIED)).status.nonce
    new = await one("UpdateRekey", key=old, nonce=nonce)
    token = (await one("StartGenerateRoot")).status.nonce
    assert (await one("UpdateGenerateRoot", key=old, nonce=token)).status.complete
    for key in new.keys[:2]:
        done = await other("VerifyRekey", key=key, nonce=new.verification_nonce)
    assert done.complete
    await until(lambda: not one.sealed)
    token = (await one("StartGenerateRoot")).status.nonce
    await refused(one("UpdateGenerateRoot", key=old, nonce=token), "'key' must be")
    for key in new.keys[1:]:
        made = await one("UpdateGenerateRoot", key=key, nonce=token)
    assert made.status.complete


async def test_the_store_never_shows_what_waits_for_its_verification(
    store: UnsureStore, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, _, keys = unsealed
    new = await made_anew(one, keys)
    await one("VerifyRekey", key=new.keys[0], nonce=new.verification_nonce)
    stored = b"".join([entry.value for entry in await store.scan(())])
    for key in new.keys:
        assert bytes.fromhex(key) not in stored


@pytest.mark.parametrize("static", [True, False])
async def test_a_root_key_is_replaced_and_every_process_stays_open(
    process: Any, store: UnsureStore, static: bool
) -> None:
    one, other = await process(static), await process(static)
    made = await one("Initialize", **TWO_OF_THREE)
    if static:
        await until(lambda: not other.sealed)
    else:
        for each in (one, other):
            await unseal(each, made.keys[:2])
    closed: list[bool] = []
    other.service.seal.subscribe(lambda: closed.append(other.sealed))
    before = one.service.seal.root
    rotations = [each("RotateRootKey") for each in (one, other, one, other)]
    await asyncio.gather(*rotations)
    await one("Rotate")
    await until(lambda: other.service.seal.root == one.service.seal.root != before)
    await until(lambda: not other.sealed and other.service.seal.ring.active_term == 2)
    assert not any(closed)
    fresh = await process(static)
    if static:
        await until(lambda: not fresh.sealed)
    else:
        await unseal(fresh, made.keys[1:])
    assert fresh.service.seal.root == one.service.seal.root


async def test_attempts_go_on_under_a_new_root_key(
    unsealed: tuple[Process, Process, list[str]], auth: Auth
) -> None:
    one, other, keys = unsealed
    token = (await one("StartGenerateRoot")).status.nonce
    await one("UpdateGenerateRoot", key=keys[0], nonce=token)
    new = await made_anew(one, keys)
    await one("VerifyRekey", key=new.keys[0], nonce=new.verification_nonce)
    before = len(auth.tokens)
    await one("RotateRootKey")
    assert (await other("UpdateGenerateRoot", key=keys[2], nonce=token)).status.complete
    assert len(auth.tokens) == before + 1
    done = await other("VerifyRekey", key=new.keys[1], nonce=new.verification_nonce)
    assert done.complete


async def test_a_root_key_is_not_replaced_while_sealed(
    unsealed: tuple[Process, Process, list[str]],
) -> None:
    one, _, _ = unsealed
    await one("Seal")
    await refused(one("RotateRootKey"), "sealed", Kind.SEALED)

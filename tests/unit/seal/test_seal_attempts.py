"""Shares given to several processes: making a root token, and replacing the shares."""

import asyncio
from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import TWO_OF_THREE, Auth, Process, refused, until, wrong_share

from strongroom_runtime.barrier import BarrierCodec, KeyHolder
from strongroom_runtime.errors import Kind
from strongroom_runtime.storage import Transaction
from strongroom_seal.storage import GENERATE, REKEY


async def test_both_forms_of_generate_root_are_one_attempt(
    unsealed: tuple[Process, Process, list[str]], auth: Auth
) -> None:
    one, other, keys = unsealed
    started = (await one("StartGenerateRootToken")).status
    await refused(other("StartGenerateRoot"), "already in progress")
    first = await other("UpdateGenerateRootToken", key=keys[0], nonce=started.nonce)
    assert first.status.progress == 1
    assert (await one("ReadGenerateRootToken")).status.progress == 1
    done = (await one("UpdateGenerateRootToken", key=keys[2], nonce=started.nonce)).status
    decoded = await one("DecodeToken", encoded_token=done.encoded_token, otp=started.otp)
    assert decoded.token in auth.tokens
    await one("StartGenerateRootToken")
    await other("CancelGenerateRootToken")
    assert not (await one("ReadGenerateRoot")).status.started
    for fields in ({}, {"encoded_token": "AAAA"}, {"otp": "x"}):
        await refused(one("DecodeToken", **fields), "is empty")


async def test_shares_for_a_root_token_may_reach_any_process(
    unsealed: tuple[Process, Process, list[str]], auth: Auth
) -> None:
    one, other, keys = unsealed
    started = (await one("StartGenerateRoot")).status
    await refused(other("StartGenerateRoot"), "already in progress")
    first = (await other("UpdateGenerateRoot", key=keys[0], nonce=started.nonce)).status
    assert first.progress == 1
    again = (await one("UpdateGenerateRoot", key=keys[0], nonce=started.nonce)).status
    assert (again.progress, again.complete) == (1, False)
    done = (await one("UpdateGenerateRoot", key=keys[2], nonce=started.nonce)).status
    assert (done.progress, done.required, done.complete) == (2, 2, True)
    decoded = await one("DecodeToken", encoded_token=done.encoded_token, otp=started.otp)
    assert decoded.token == auth.tokens[-1]
    await refused(
        other("UpdateGenerateRoot", key=keys[1], nonce=started.nonce), "no root generation"
    )


@pytest.mark.parametrize("purpose", ["GenerateRoot", "Rekey"])
async def test_an_attempt_that_begins_while_the_root_key_is_replaced_can_go_on(
    unsealed: tuple[Process, Process, list[str]], store: MemoryStore, purpose: str
) -> None:
    one, other, keys = unsealed
    commit, left = store.commit, [other]

    async def late(transaction: Transaction) -> int:
        if left and transaction.puts.keys() & {GENERATE, REKEY}:
            await left.pop()("RotateRootKey")
        return await commit(transaction)

    store.commit = late  # type: ignore[method-assign]
    fields = TWO_OF_THREE if purpose == "Rekey" else {}
    started = (await one(f"Start{purpose}", **fields)).status
    for process in (other, one):
        assert (await process(f"Read{purpose}")).status.nonce == started.nonce
    await other("RotateRootKey")
    for key in keys[:2]:
        await other(f"Update{purpose}", key=key, nonce=started.nonce)
    assert not (await other(f"Read{purpose}")).status.started


async def test_an_attempt_that_does_not_open_can_be_cancelled(
    unsealed: tuple[Process, Process, list[str]], store: MemoryStore
) -> None:
    one = unsealed[0]
    await one("StartGenerateRoot")
    await store.commit(Transaction(puts={GENERATE: b"put there by somebody"}))
    await refused(one("ReadGenerateRoot"), "does not open", Kind.INTERNAL)
    await one("CancelGenerateRoot")
    assert (await one("StartGenerateRoot")).status.started


async def test_an_attempt_survives_its_process(
    process: Any, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, _, keys = unsealed
    started = (await one("StartGenerateRoot")).status
    await one("UpdateGenerateRoot", key=keys[0], nonce=started.nonce)
    await one.service.stop()
    restarted = await process()
    await refused(restarted("ReadGenerateRoot"), "sealed", Kind.SEALED)
    for key in keys[:2]:
        await restarted("Unseal", key=key)
    assert (await restarted("ReadGenerateRoot")).status.progress == 1


async def test_two_last_shares_at_once_make_one_token(
    unsealed: tuple[Process, Process, list[str]], auth: Auth
) -> None:
    one, other, keys = unsealed
    before = len(auth.tokens)
    nonce = (await one("StartGenerateRoot")).status.nonce
    await one("UpdateGenerateRoot", key=keys[0], nonce=nonce)
    results = await asyncio.gather(
        one("UpdateGenerateRoot", key=keys[1], nonce=nonce),
        other("UpdateGenerateRoot", key=keys[2], nonce=nonce),
        return_exceptions=True,
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert len(auth.tokens) == before + 1


async def test_no_token_is_left_where_auth_does_not_take_it(
    unsealed: tuple[Process, Process, list[str]], auth: Auth
) -> None:
    one, _, keys = unsealed
    nonce = (await one("StartGenerateRoot")).status.nonce
    await one("UpdateGenerateRoot", key=keys[0], nonce=nonce)
    auth.away = True
    await refused(one("UpdateGenerateRoot", key=keys[1], nonce=nonce), "away", Kind.UNAVAILABLE)
    assert not (await one("ReadGenerateRoot")).status.started


async def test_the_store_never_shows_a_share(
    unsealed: tuple[Process, Process, list[str]], store: MemoryStore
) -> None:
    one, _, keys = unsealed
    nonce = (await one("StartGenerateRoot")).status.nonce
    await one("UpdateGenerateRoot", key=keys[0], nonce=nonce)
    stored = b"".join([entry.value for entry in await store.scan(())])
    assert bytes.fromhex(keys[0]) not in stored
    assert keys[0].encode() not in stored


async def test_new_shares_replace_the_old_ones(
    process: Any, unsealed: tuple[Process, Process, list[str]]
) -> None:
    one, other, keys = unsealed
    value = BarrierCodec("kv", KeyHolder(one.service.seal.ring.ring_for("kv"))).seal(b"k", b"v")
    started = (await one("StartRekey", secret_shares=2, secret_threshold=2)).status
    assert (started.started, started.n, started.t, started.required) == (True, 2, 2, 2)
    await refused(other("StartRekey", **TWO_OF_THREE), "already in progress")
    await refused(one("UpdateRekey", key=keys[0], nonce="other"), "nonce")
    first = await other("UpdateRekey", key=keys[0], nonce=started.nonce)
    assert (first.progress, first.complete, list(first.keys)) == (1, False, [])
    done = await one("UpdateRekey", key=keys[1], nonce=started.nonce)
    assert (done.complete, len(done.keys), len(done.keys_base64)) == (True, 2, 2)
    assert not one.sealed
    await one("Rotate")
    await until(lambda: other.sealed)  # it cannot get at the new root key
    await other("Unseal", key=keys[0])
    await refused(other("Unseal", key=keys[1]), "do not make the key")
    restarted = await process()
    for each in (other, restarted):
        for key in done.keys:
            await each("Unseal", key=key)
        status = (await each("ReadSealStatus")).status
        assert (status.sealed, status.n, status.t) == (False, 2, 2)
        ring = each.service.seal.ring
        assert ring.active_term == 2
        assert BarrierCodec("kv", KeyHolder(ring.ring_for("kv"))).open(b"k", value) == b"v"


async def test_a_recovery_key_is_replaced_and_other_processes_stay_open(process: Any) -> None:
    one, other = await process(True), await process(True)
    made = await one("Initialize", recovery_shares=1, recovery_threshold=1)
    await until(lambda: not other.sealed)
    nonce = (await one("StartRekey", **TWO_OF_THREE)).status.nonce
    done = await one("UpdateRekey", key=made.recovery_keys[0], nonce=nonce)
    assert len(done.keys) == 3
    await one("Rotate")
    await until(lambda: not other.sealed and other.service.seal.ring.active_term == 2)
    await other("Seal")
    for key in done.keys[1:]:
        await other("Unseal", key=key)
    assert not other.sealed


async def test_a_promised_token_outlives_a_change_of_shares(process: Any, auth: Auth) -> None:
    auth.away = True
    one = await process(True)
    made = await one("Initialize", recovery_shares=1, recovery_threshold=1)
    nonce = (await one("StartRekey", secret_shares=1, secret_threshold=1)).status.nonce
    await one("UpdateRekey", key=made.recovery_keys[0], nonce=nonce)
    auth.away = False
    await until(lambda: bool(auth.tokens))
    assert auth.tokens == [made.root_token]


async def test_wrong_shares_replace_nothing(
    unsealed: tuple[Process, Process, list[str]],
) -> None:
    one, _, keys = unsealed
    await one("StartGenerateRoot")
    nonce = (await one("StartRekey", **TWO_OF_THREE)).status.nonce
    await one("UpdateRekey", key=keys[0], nonce=nonce)
    await refused(one("UpdateRekey", key=wrong_share(keys[0]), nonce=nonce), "do not make the key")
    assert not (await one("ReadRekey")).status.started
    assert (await one("ReadGenerateRoot")).status.started
    await one("StartRekey", **TWO_OF_THREE)
    await one("CancelRekey")
    assert not (await one("ReadRekey")).status.started


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"secret_shares": 3, "secret_threshold": 1}, "threshold must be"),
        ({"secret_shares": 0, "secret_threshold": 0}, "must be between"),
        ({**TWO_OF_THREE, "pgp_keys": ["k"]}, "pgp_keys: there must be one for each share"),
        ({**TWO_OF_THREE, "pgp_keys": ["k", "k", "k"]}, "pgp_keys: a key is not base64"),
        ({**TWO_OF_THREE, "pgp_keys": ["AAAA"] * 3}, "pgp_keys: a key cannot be used"),
        ({**TWO_OF_THREE, "backup": True}, "backup: needs pgp_keys"),
    ],
)
async def test_changes_that_cannot_be_are_refused(
    unsealed: tuple[Process, Process, list[str]], fields: dict[str, Any], message: str
) -> None:
    one, _, _ = unsealed
    await refused(one("StartRekey", **fields), message)
    assert not (await one("ReadRekey")).status.started

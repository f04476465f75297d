"""The seal service: initialisation, unsealing, sealing, rotation, root tokens."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import Auth, refused, wrong_share

from strongroom.seal.v1 import seal_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Host
from strongroom_seal.config import Config
from strongroom_seal.service import SealService, build

CONTEXT = RequestContext("r")


class Process:
    """One seal process over a store that outlives it."""

    def __init__(self, store: MemoryStore, auth: Auth, config: Config) -> None:
        self.service: SealService = build(Host(store, peers={"auth": auth}), config)
        self._caller = LocalCaller(self.service.handlers)

    async def __call__(self, method: str, **fields: Any) -> Any:
        request: type[Message] = getattr(pb, f"{method}Request")
        name = f"/strongroom.seal.v1.SealService/{method}"
        return await self._caller.call(name, request(**fields), CONTEXT)

    @property
    def sealed(self) -> bool:
        return self.service.seal.sealed


@pytest.fixture
async def machine(auth: Auth, tmp_path: Path) -> AsyncIterator[Any]:
    """Starts processes; the first argument says how they unseal."""
    store, processes = MemoryStore(), []
    key = tmp_path / "seal.key"
    key.write_bytes(os.urandom(32))

    async def start(kind: str = "shamir", **config: Any) -> Process:
        file = key if kind == "static" else None
        process = Process(store, auth, Config(static_key_file=file, adopt_seconds=0.2, **config))
        processes.append(process)
        await process.service.start()
        return process

    start.store, start.key = store, key  # type: ignore[attr-defined]
    yield start
    for process in processes:
        await process.service.stop()


async def test_three_of_five_people_unseal(machine: Any, auth: Auth) -> None:
    process = await machine()
    assert not (await process("ReadInit")).initialized
    made = await process("Initialize", secret_shares=5, secret_threshold=3)
    assert len(made.keys) == 5
    assert auth.tokens == [made.root_token]
    assert made.root_token.startswith("srs.")
    assert process.sealed
    status = (await process("Unseal", key=made.keys[4])).status
    assert (status.sealed, status.t, status.n, status.progress) == (True, 3, 5, 1)
    assert not status.HasField("cluster_id")
    again = (await process("Unseal", key=made.keys[4])).status
    assert (again.progress, again.nonce) == (1, status.nonce)
    await process("Unseal", key=made.keys_base64[1])
    status = (await process("Unseal", key=made.keys[0])).status
    assert (status.sealed, status.progress, bool(status.cluster_id)) == (False, 0, True)
    assert auth.tokens == [made.root_token]


async def test_a_share_may_be_alone(machine: Any) -> None:
    process = await machine()
    made = await process("Initialize", secret_shares=1, secret_threshold=1)
    assert not (await process("Unseal", key=made.keys[0])).status.sealed


async def test_wrong_shares_open_nothing_and_count_from_the_start(machine: Any) -> None:
    process = await machine()
    made = await process("Initialize", secret_shares=3, secret_threshold=2)
    await process("Unseal", key=made.keys[0])
    await refused(process("Unseal", key=wrong_share(made.keys[0])), "do not make the key")
    status = (await process("ReadSealStatus")).status
    assert (status.sealed, status.progress) == (True, 0)
    await process("Unseal", key=made.keys[0])
    assert not (await process("Unseal", key=made.keys[1])).status.sealed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'key' must be specified"),
        ({"key": "zz"}, "must be a valid hex or base64 string of 33 bytes"),
        ({"key": "00" * 32}, "33 bytes"),
        ({"key": "00" * 32 + "01", "migrate": True}, "not supported"),
    ],
)
async def test_malformed_shares_are_refused(
    machine: Any, fields: dict[str, Any], message: str
) -> None:
    process = await machine()
    await refused(process("Unseal", key="00" * 33), "not initialized")
    await process("Initialize", secret_shares=3, secret_threshold=2)
    await refused(process("Unseal", **fields), message)
    assert (await process("ReadSealStatus")).status.progress == 0


async def test_an_open_seal_still_looks_at_what_it_is_given(machine: Any) -> None:
    process = await machine()
    made = await process("Initialize", secret_shares=1, secret_threshold=1)
    await process("Unseal", key=made.keys[0])
    await refused(process("Unseal", key="zz"), "valid hex or base64")
    await refused(process("Unseal", reset=True), "vault is unsealed")
    assert not (await process("Unseal", key=made.keys[0])).status.sealed


async def test_reset_forgets_the_shares_given(machine: Any) -> None:
    process = await machine()
    made = await process("Initialize", secret_shares=3, secret_threshold=2)
    await process("Unseal", key=made.keys[0])
    assert (await process("Unseal", reset=True)).status.progress == 0


@pytest.mark.parametrize(
    ("shares", "threshold"), [(0, 0), (3, 1), (2, 3), (256, 3), (-1, -1), (1, 2)]
)
async def test_numbers_out_of_range_make_no_keys(machine: Any, shares: int, threshold: int) -> None:
    process = await machine()
    await refused(
        process("Initialize", secret_shares=shares, secret_threshold=threshold), "must be"
    )
    assert not (await process("ReadInit")).initialized


async def test_of_two_initialisations_at_once_one_wins(machine: Any) -> None:
    processes = [await machine() for _ in range(2)]
    fields = {"secret_shares": 1, "secret_threshold": 1}
    results = await asyncio.gather(
        *(p("Initialize", **fields) for p in processes), return_exceptions=True
    )
    made = [r for r in results if not isinstance(r, BaseException)]
    assert len(made) == 1
    for process in processes:
        assert not (await process("Unseal", key=made[0].keys[0])).status.sealed
    await refused(processes[0]("Initialize", **fields), "already initialized")


async def test_a_static_key_unseals_at_every_start(machine: Any, auth: Auth) -> None:
    process = await machine("static")
    made = await process("Initialize", recovery_shares=3, recovery_threshold=2)
    assert (list(made.keys), len(made.recovery_keys)) == ([], 3)
    assert not process.sealed
    restarted = await machine("static")
    assert not restarted.sealed
    status = (await restarted("ReadSealStatus")).status
    assert (status.type, status.recovery_seal) == ("static", True)
    await restarted("Seal")
    assert restarted.sealed
    await restarted("Unseal", key=made.recovery_keys[0])
    assert not (await restarted("Unseal", key=made.recovery_keys[2])).status.sealed


async def test_another_static_key_is_refused_by_name(machine: Any) -> None:
    await (await machine("static"))("Initialize", recovery_shares=1, recovery_threshold=1)
    machine.key.write_bytes(os.urandom(32))
    await refused(machine("static"), "seal.key: not the key", Kind.FAILED_PRECONDITION)


@pytest.mark.parametrize("form", [bytes.hex, base64.b64encode])
async def test_a_key_file_may_be_text(machine: Any, form: Any) -> None:
    text = form(os.urandom(32))
    machine.key.write_bytes(text if isinstance(text, bytes) else text.encode())
    await (await machine("static"))("Initialize", recovery_shares=1, recovery_threshold=1)


async def test_a_root_token_promised_before_a_crash_is_made_usable_later(
    machine: Any, auth: Auth
) -> None:
    auth.away = True
    process = await machine("static")
    made = await process("Initialize", recovery_shares=1, recovery_threshold=1)
    assert auth.tokens == []
    process.service.seal.close()  # as after a crash: nothing of it goes on
    auth.away = False
    await machine("static")
    while not auth.tokens:
        await asyncio.sleep(0.01)
    assert auth.tokens == [made.root_token]


async def test_sealing_one_process_seals_all(machine: Any) -> None:
    first = await machine("static")
    await first("Initialize", recovery_shares=1, recovery_threshold=1)
    second = await machine("static")
    assert not second.sealed
    await first("Seal")
    while not second.sealed:
        await asyncio.sleep(0.01)
    await refused(first("ReadKeyStatus"), "Vault is sealed", Kind.SEALED)
    await refused(second("Rotate"), "Vault is sealed", Kind.SEALED)


async def test_a_rotation_begins_a_term_everywhere_and_keeps_the_old(machine: Any) -> None:
    first = await machine("static")
    await first("Initialize", recovery_shares=1, recovery_threshold=1)
    second = await machine("static")
    before = first.service.seal.ring.keys_for("kv")
    await first("Rotate")
    while second.service.seal.ring.active_term == 1:
        await asyncio.sleep(0.01)
    terms, name_key = second.service.seal.ring.keys_for("kv")
    assert (terms[1], name_key) == (before[0][1], before[1])
    assert (await second("ReadKeyStatus")).term == 2
    await asyncio.gather(first("Rotate"), second("Rotate"))
    assert (await first("ReadKeyStatus")).term == 4


async def test_services_get_different_keys(machine: Any) -> None:
    process = await machine("static")
    await process("Initialize", recovery_shares=1, recovery_threshold=1)
    ring = process.service.seal.ring
    kv, auth_keys = ring.keys_for("kv"), ring.keys_for("auth")
    assert kv[0][1] != auth_keys[0][1]
    assert kv[1] != auth_keys[1]
    assert kv[0][1].hex() not in repr(ring)


async def test_keys_are_sent_now_and_at_every_change(machine: Any) -> None:
    process = await machine("static")
    handler = process.service.handlers.methods["/strongroom.seal.v1.KeyService/WatchKeyRing"]
    stream = handler.stream(pb.WatchKeyRingRequest(), RequestContext("r", caller="kv"))
    assert (await anext(stream)).sealed
    await process("Initialize", recovery_shares=1, recovery_threshold=1)
    first = await anext(stream)
    assert dict(first.terms) == process.service.seal.ring.keys_for("kv")[0]
    await process("Rotate")
    second = await anext(stream)
    assert (second.active_term, set(second.terms)) == (2, {1, 2, 3})
    assert second.terms[2] == first.terms[2]  # known before it was in use
    await process("Seal")
    last = await anext(stream)
    assert (last.sealed, len(last.terms), last.name_key) == (True, 0, b"")
    await stream.aclose()


async def test_people_make_a_root_token(machine: Any, auth: Auth) -> None:
    process = await machine()
    made = await process("Initialize", secret_shares=3, secret_threshold=2)
    await refused(process("StartGenerateRoot"), "sealed", Kind.SEALED)
    for key in made.keys[:2]:
        await process("Unseal", key=key)
    started = (await process("StartGenerateRoot")).status
    assert (started.started, started.required, len(started.otp)) == (True, 2, started.otp_length)
    await refused(process("StartGenerateRoot"), "already in progress")
    await refused(process("UpdateGenerateRoot", key=made.keys[0], nonce="other"), "nonce")
    status = (await process("UpdateGenerateRoot", key=made.keys[0], nonce=started.nonce)).status
    assert (status.progress, status.complete, status.otp) == (1, False, "")
    done = (await process("UpdateGenerateRoot", key=made.keys[2], nonce=started.nonce)).status
    assert done.complete
    decoded = await process("DecodeToken", encoded_token=done.encoded_token, otp=started.otp)
    assert decoded.token == auth.tokens[-1]
    assert decoded.token != made.root_token
    assert not (await process("ReadGenerateRoot")).status.started


async def test_wrong_shares_make_no_root_token(machine: Any, auth: Auth) -> None:
    process = await machine("static")
    await process("Initialize", recovery_shares=3, recovery_threshold=2)
    nonce = (await process("StartGenerateRoot")).status.nonce
    before = list(auth.tokens)
    for place in (b"\x01", b"\x02"):
        call = process("UpdateGenerateRoot", key=(os.urandom(32) + place).hex(), nonce=nonce)
        if place == b"\x02":
            await refused(call, "do not make the key")
        else:
            await call
    assert auth.tokens == before
    assert not (await process("ReadGenerateRoot")).status.started
    await process("StartGenerateRoot")
    await process("CancelGenerateRoot")
    assert not (await process("ReadGenerateRoot")).status.started


async def test_the_store_holds_no_key_in_the_clear(machine: Any, auth: Auth) -> None:
    process = await machine()
    made = await process("Initialize", secret_shares=3, secret_threshold=2)
    for key in made.keys[:2]:
        await process("Unseal", key=key)
    ring = process.service.seal.ring
    stored = b"".join([e.value for e in await machine.store.scan(())])
    for secret in (ring.terms[1].key, ring.name_secret, made.root_token.encode()):
        assert secret not in stored

"""The transit service through its handler table, as the gateway calls it."""

import asyncio
import hashlib
import hmac
import random
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.store import MemoryStore

from strongroom.transit.v1 import cipher_pb2, key_pb2, material_pb2, signature_pb2, stream_pb2
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller
from strongroom_runtime.service import Host
from strongroom_runtime.storage import Transaction
from strongroom_transit.domain.kinds import TYPES
from strongroom_transit.domain.material import Loaded, Version, new_version
from strongroom_transit.service import TransitService, build
from strongroom_transit.storage import Keys

CONTEXT = RequestContext("r", mount=MountContext("transit/", "transit", "mount-1", "transit_1"))
CIPHERS = sorted(name for name, kind in TYPES.items() if kind.encrypts)
AEADS = [name for name in CIPHERS if not name.startswith("rsa")]


class Transit:
    """Calls methods by name, with fields as keywords. Several may share a store, as replicas do."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store, self.clock = store or MemoryStore(), ManualClock()
        self.service: TransitService = build(Host(self.store, self.clock))
        self.caller = LocalCaller(self.service.handlers)

    async def __call__(self, method: str, by: RequestContext = CONTEXT, /, **fields: Any) -> Any:
        module, service = next(
            (m, s)
            for m in (key_pb2, cipher_pb2, material_pb2, signature_pb2, stream_pb2)
            for s in m.DESCRIPTOR.services_by_name.values()
            if method in s.methods_by_name
        )
        request: type[Message] = getattr(module, f"{method}Request")
        return await self.caller.call(f"/{service.full_name}/{method}", request(**fields), by)

    async def encrypt(self, name: str, plaintext: bytes, **fields: Any) -> str:
        answer = await self("Encrypt", name=name, plaintext=plaintext, **fields)
        return str(answer.ciphertext)

    async def decrypt(self, name: str, ciphertext: str, **fields: Any) -> bytes:
        answer = await self("Decrypt", name=name, ciphertext=ciphertext, **fields)
        return bytes(answer.plaintext)

    async def duplex(
        self,
        method: str,
        requests: list[Any],
        before_last: Callable[[], Awaitable[Any]] | None = None,
    ) -> bytes:
        async def sent() -> AsyncIterator[Any]:
            for number, request in enumerate(requests, start=1):
                if number == len(requests) and before_last is not None:
                    await before_last()
                yield request

        name = f"/strongroom.transit.v1.StreamCipherService/{method}"
        return b"".join([m.data async for m in self.caller.duplex(name, sent(), CONTEXT)])


@pytest.fixture
def transit() -> Transit:
    return Transit()


async def refused(call: Any, says: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.kind is Kind.INVALID
    assert says in caught.value.message


async def nothing_listed(transit: Transit) -> None:
    with pytest.raises(ServiceError) as caught:
        await transit("ListKeys")
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize("kind", CIPHERS)
async def test_what_is_encrypted_is_decrypted_and_what_was_changed_is_not(
    transit: Transit, kind: str
) -> None:
    await transit("CreateKey", name="k", type=kind)
    ciphertext = await transit.encrypt("k", b"plain")
    assert ciphertext.startswith("vault:v1:")
    assert await transit.decrypt("k", ciphertext) == b"plain"
    body = bytearray(b64decode(ciphertext[9:]))
    for at in random.sample(range(len(body)), 8):
        changed = bytearray(body)
        changed[at] ^= 1
        text = "vault:v1:" + b64encode(changed).decode()
        with pytest.raises(ServiceError) as caught:
            await transit.decrypt("k", text)
        assert caught.value.kind is Kind.INVALID


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kind=st.sampled_from(AEADS),
    plaintext=st.binary(max_size=300),
    context=st.binary(min_size=1, max_size=40),
    associated=st.binary(max_size=40),
    convergent=st.booleans(),
    rotations=st.integers(0, 3),
)
async def test_contexts_and_associated_data_belong_to_a_ciphertext(
    kind: str, plaintext: bytes, context: bytes, associated: bytes, convergent: bool, rotations: int
) -> None:
    transit = Transit()
    await transit("CreateKey", name="k", type=kind, derived=True, convergent_encryption=convergent)
    with_all = {"context": context, "associated_data": associated}
    first = await transit.encrypt("k", plaintext, **with_all)
    assert (await transit.encrypt("k", plaintext, **with_all) == first) is convergent
    for _ in range(rotations):
        await transit("RotateKey", name="k")
    assert await transit.decrypt("k", first, **with_all) == plaintext
    newest = await transit.encrypt("k", plaintext, **with_all)
    assert newest.startswith(f"vault:v{rotations + 1}:")
    assert await transit.decrypt("k", newest, **with_all) == plaintext
    for wrong in (
        {"context": context + b"x", "associated_data": associated},
        {"context": context, "associated_data": associated + b"x"},
    ):
        with pytest.raises(ServiceError):
            await transit.decrypt("k", first, **wrong)
    await refused(transit.encrypt("k", plaintext), "context")


async def test_the_form_of_a_ciphertext_is_the_documented_one(transit: Transit) -> None:
    """Opened here by hand: HKDF, HMAC for the nonce, AES-GCM with the nonce in front."""
    keys = Keys(transit.store, 5)
    for name, convergent in (("plain", False), ("convergent", True)):
        await transit("CreateKey", name=name, derived=convergent, convergent_encryption=convergent)
        keyset = await keys.keyset("mount-1", name, {1})
        assert keyset is not None
        secret = keyset.version(1).version.secret
        text = await transit.encrypt(name, b"hello", context=b"ctx" if convergent else b"")
        sealed = b64decode(text.removeprefix("vault:v1:"))
        if convergent:
            derived = HKDF(hashes.SHA256(), 64, None, b"ctx").derive(secret)
            secret = derived[:32]
            assert sealed[:12] == hmac.digest(derived[32:], b"hello", hashlib.sha256)[:12]
        assert AESGCM(secret).decrypt(sealed[:12], sealed[12:], None) == b"hello"


async def test_one_bad_item_among_many_spoils_none_of_the_others(transit: Transit) -> None:
    await transit("CreateKey", name="k")
    items = [cipher_pb2.EncryptItem(plaintext=b"%d" % n, reference=str(n)) for n in range(10_000)]
    items[77].key_version = 9
    answer = await transit("Encrypt", name="k", batch_input=items)
    failed = [r.reference for r in answer.batch_results if r.HasField("error")]
    assert (failed, answer.status, len(answer.batch_results)) == (["77"], 400, 10_000)
    back = [
        cipher_pb2.DecryptItem(ciphertext=r.ciphertext, reference=r.reference)
        for r in answer.batch_results
        if not r.HasField("error")
    ]
    opened = await transit("Decrypt", name="k", batch_input=back, partial_failure_response_code=207)
    assert opened.status == 0
    assert all(r.plaintext == r.reference.encode() for r in opened.batch_results)


@pytest.mark.parametrize("kind", AEADS)
async def test_no_two_texts_have_a_nonce(transit: Transit, kind: str) -> None:
    await transit("CreateKey", name="k", type=kind)
    await transit("RotateKey", name="k")
    # More than are drawn at once, and versions mixed among them.
    items = [cipher_pb2.EncryptItem(plaintext=b"same", key_version=n % 3) for n in range(2_500)]
    made = [
        r.ciphertext for r in (await transit("Encrypt", name="k", batch_input=items)).batch_results
    ]
    again = [cipher_pb2.RewrapItem(ciphertext=text) for text in made]
    rewrapped = await transit("Rewrap", name="k", batch_input=again)
    made += [r.ciphertext for r in rewrapped.batch_results]
    size = TYPES[kind].nonce_bytes
    nonces = {b64decode(text.split(":")[2])[:size] for text in made}
    assert (len(nonces), {len(nonce) for nonce in nonces}) == (5_000, {size})
    opening = [cipher_pb2.DecryptItem(ciphertext=text) for text in made]
    opened = await transit("Decrypt", name="k", batch_input=opening)
    assert {result.plaintext for result in opened.batch_results} == {b"same"}


async def test_versions_bound_what_may_be_used(transit: Transit) -> None:
    await transit("CreateKey", name="k")
    first = await transit.encrypt("k", b"x")
    for _ in range(3):
        await transit("RotateKey", name="k")
    again = (await transit("Rewrap", name="k", ciphertext=first)).ciphertext
    assert again.startswith("vault:v4:")
    assert await transit.decrypt("k", again) == b"x"
    assert (await transit.encrypt("k", b"x", key_version=2)).startswith("vault:v2:")
    await refused(transit.encrypt("k", b"x", key_version=5), "key_version")
    await refused(transit.decrypt("k", "vault:v9:AAAA"), "too new")
    await transit("ConfigureKey", name="k", min_decryption_version=2, min_encryption_version=3)
    await refused(transit.decrypt("k", first), "too old")
    await refused(transit.encrypt("k", b"x", key_version=2), "key_version")
    await refused(transit("ConfigureKey", name="k", min_decryption_version=9), "min_decryption")
    await transit("TrimKey", name="k", min_available_version=2)
    await refused(transit("ConfigureKey", name="k", min_decryption_version=1), "min_available")


@pytest.mark.parametrize("kind", ["aes256-gcm96", "ed25519"])
async def test_a_version_that_opens_nothing_makes_nothing(transit: Transit, kind: str) -> None:
    await transit("CreateKey", name="k", type=kind)
    await transit("RotateKey", name="k")
    await transit("ConfigureKey", name="k", min_decryption_version=2)
    given = {"name": "k", "key_version": 1, "input": b"x"}
    await refused(transit("Hmac", **given), "minimum decryption key version")
    if kind == "ed25519":
        await refused(transit("Sign", **given), "minimum decryption key version")
        for method in ("CreateCertificateRequest", "SetCertificate"):
            await refused(transit(method, name="k", version=1), "minimum decryption key version")
    else:
        old = transit.encrypt("k", b"x", key_version=1)
        await refused(old, "minimum decryption key version")
        datakey = transit("CreateDataKey", name="k", kind="wrapped", key_version=1)
        await refused(datakey, "minimum decryption key version")
    assert (await transit("Hmac", name="k", key_version=2, input=b"x")).hmac


async def test_twenty_rotations_at_once_make_twenty_versions(transit: Transit) -> None:
    await transit("CreateKey", name="k")
    replicas = [transit, *(Transit(transit.store) for _ in range(3))]

    async def use(replica: Transit) -> None:
        for _ in range(50):
            text = await replica.encrypt("k", b"x")
            other = random.choice(replicas)
            assert await other.decrypt("k", text) == b"x"
            await asyncio.sleep(0)

    rotations = [random.choice(replicas)("RotateKey", name="k") for _ in range(20)]
    await asyncio.gather(*rotations, *(use(replica) for replica in replicas))
    assert (await transit("ReadKey", name="k")).key.latest_version == 21


async def test_keys_rotate_once_when_they_are_due(transit: Transit) -> None:
    await transit("CreateKey", name="k", auto_rotate_period=3600)
    other = Transit(transit.store)
    for hours, latest in ((0.5, 1), (0.6, 2), (0.1, 2), (3, 3)):
        for each in (transit, other):
            each.clock.advance(hours * 3600)
        await asyncio.gather(transit.service.rotation.once(), other.service.rotation.once())
        assert (await transit("ReadKey", name="k")).key.latest_version == latest
    await refused(transit("CreateKey", name="l", auto_rotate_period=60), "auto_rotate_period")


async def test_a_key_that_does_not_open_keeps_no_other_from_being_rotated(transit: Transit) -> None:
    for name in ("a", "b"):
        await transit("CreateKey", name=name, auto_rotate_period=3600)
        transit.clock.advance(1)
    transit.clock.advance(3601)
    path = next(e.path for e in await transit.store.scan(()) if e.path[0] == "k" and "a" in e.path)
    await transit.store.commit(Transaction(puts={path: b"broken"}))
    await transit.service.rotation.once()
    assert (await transit("ReadKey", name="b")).key.latest_version == 2
    assert [noted[-1] for noted, _ in transit.store.noted] == ["a"]


async def test_deletion_is_allowed_first_and_soft_deletion_is_taken_back(transit: Transit) -> None:
    await transit("CreateKey", name="k")
    text = await transit.encrypt("k", b"x")
    await refused(transit("DeleteKey", name="k"), "deletion is not allowed")
    await transit("SoftDeleteKey", name="k")
    await refused(transit.decrypt("k", text), "soft-deleted")
    await transit("RestoreSoftDeletedKey", name="k")
    assert await transit.decrypt("k", text) == b"x"
    await transit("ConfigureKey", name="k", deletion_allowed=True)
    await transit("DeleteKey", name="k")
    await refused(transit.decrypt("k", text), "not found")


async def test_a_key_is_made_for_who_may_create_it_alone(transit: Transit) -> None:
    only_update = msgspec.structs.replace(CONTEXT, may_create=False)
    with pytest.raises(ServiceError) as caught:
        await transit("Encrypt", only_update, name="new", plaintext=b"x")
    assert caught.value.kind is Kind.DENIED
    await transit.encrypt("new", b"x")
    await transit("WriteKeysConfig", disable_upsert=True)
    await refused(transit.encrypt("newer", b"x"), "not found")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "rot13"}, "type"),
        ({"type": "rsa-2048", "derived": True}, "derived"),
        ({"convergent_encryption": True}, "derivation"),
        ({"type": "hmac", "key_size": 8}, "key_size"),
        ({"name": "a/b"}, "name"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(
    transit: Transit, fields: dict[str, Any], says: str
) -> None:
    await refused(transit("CreateKey", **{"name": "k", **fields}), says)
    await nothing_listed(transit)
    await transit("CreateKey", name="k")  # nothing was left behind that is in its way


async def test_disabling_a_mount_leaves_nothing(transit: Transit) -> None:
    await transit("CreateKey", name="k", auto_rotate_period=3600)
    await transit("RotateKey", name="k")
    await transit("DropMount", mount_uuid="mount-1")
    await nothing_listed(transit)
    with pytest.raises(ServiceError):
        await transit("CreateKey", name="k")


async def test_batches_of_streams(transit: Transit) -> None:
    await transit("CreateKey", name="k")
    items = [stream_pb2.EncryptStreamItem(plaintext=b"%d" % n, reference=str(n)) for n in range(9)]
    sealed = await transit("EncryptStream", name="k", items=items)
    await transit("RotateKey", name="k")
    texts = [
        stream_pb2.DecryptStreamItem(ciphertext=r.ciphertext, reference=r.reference)
        for r in sealed.items
    ]
    texts[3].ciphertext += "AAAA"
    anew = await transit("RewrapStream", name="k", items=texts)
    assert anew.key_version == 2
    assert [bool(r.error) for r in anew.items] == [n == 3 for n in range(9)]
    good = [
        stream_pb2.DecryptStreamItem(ciphertext=r.ciphertext, reference=r.reference)
        for r in anew.items
        if not r.error
    ]
    opened = await transit("DecryptStream", name="k", items=good)
    assert all(r.plaintext == r.reference.encode() for r in opened.items)


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_001])
async def test_streams_of_any_length(transit: Transit, size: int) -> None:
    await transit("CreateKey", name="k")
    data = random.randbytes(size)
    ask, give = (
        stream_pb2.StreamCipherServiceEncryptRequest,
        stream_pb2.StreamCipherServiceDecryptRequest,
    )
    pieces = [data[at : at + 50_000] for at in range(0, size, 50_000)]
    first = ask(name="k", associated_data=b"file")
    sealed = await transit.duplex("Encrypt", [first, *(ask(data=p) for p in pieces)])
    await transit("RotateKey", name="k")
    cut = [sealed[at : at + 7_777] for at in range(0, len(sealed), 7_777)]
    begin = give(name="k", associated_data=b"file")
    assert await transit.duplex("Decrypt", [begin, *(give(data=p) for p in cut)]) == data
    for wrong in (sealed[:-1], sealed[:-17] + b"\0" * 17, sealed[1:], sealed[:20]):
        await refused(transit.duplex("Decrypt", [begin, give(data=wrong)]), "data: ")


async def _another_of_its_name(transit: Transit) -> None:
    await transit("DeleteKey", name="k")
    await transit("CreateKey", name="k")


CHANGES: list[tuple[Callable[[Transit], Awaitable[Any]], str, str]] = [
    (lambda transit: transit("DeleteKey", name="k"), "not found", "not found"),
    (_another_of_its_name, "not found", "not found"),
    (lambda transit: transit("SoftDeleteKey", name="k"), "soft-deleted", "soft-deleted"),
    (
        lambda transit: transit("ConfigureKey", name="k", min_encryption_version=2),
        "less than the minimum encryption key version",
        "",
    ),
    (
        lambda transit: transit("ConfigureKey", name="k", min_decryption_version=2),
        "less than the minimum decryption key version",
        "too old",
    ),
    (lambda transit: transit("RotateKey", name="k"), "", ""),
]


@pytest.mark.parametrize("method", ["Encrypt", "Decrypt"])
@pytest.mark.parametrize(("change", "encrypting", "decrypting"), CHANGES)
async def test_a_stream_ends_with_the_version_of_a_key_that_it_rests_on(
    transit: Transit,
    change: Callable[[Transit], Awaitable[Any]],
    encrypting: str,
    decrypting: str,
    method: str,
) -> None:
    """As single requests do, of which each looks at the key anew."""
    await transit("CreateKey", name="k")
    await transit("ConfigureKey", name="k", deletion_allowed=True)
    ask, give = (
        stream_pb2.StreamCipherServiceEncryptRequest,
        stream_pb2.StreamCipherServiceDecryptRequest,
    )
    pieces: list[Any] = [ask(name="k", key_version=1), ask(data=b"some"), ask(data=b"more")]
    sealed = await transit.duplex("Encrypt", pieces)
    await transit("RotateKey", name="k")
    if method == "Decrypt":
        pieces = [give(name="k", data=sealed[:-1]), give(data=sealed[-1:])]
    said = encrypting if method == "Encrypt" else decrypting
    stream = transit.duplex(method, pieces, lambda: change(Transit(transit.store)))
    if said:
        await refused(stream, said)
    else:
        assert await stream


@pytest.mark.parametrize("fields", [{}, {"derived": True}, {"type": "rsa-2048"}])
async def test_negative_versions_are_refused(transit: Transit, fields: dict[str, Any]) -> None:
    await transit("CreateKey", name="k", **fields)
    about: dict[str, Any] = {"context": b"c"} if "derived" in fields else {}
    good = await transit.encrypt("k", b"text", **about)
    wrong: dict[str, Any] = {"name": "k", "key_version": -1, **about}
    await refused(transit("Encrypt", plaintext=b"x", **wrong), "negative")
    await refused(transit("Rewrap", ciphertext=good, **wrong), "negative")
    await refused(transit("CreateDataKey", kind="wrapped", **wrong), "negative")
    await refused(transit("EncryptStream", name="k", key_version=-1), "negative")
    items = [cipher_pb2.EncryptItem(plaintext=b"x", key_version=n, **about) for n in (-1, 0)]
    results = (await transit("Encrypt", name="k", batch_input=items)).batch_results
    assert [bool(each.ciphertext) for each in results] == [False, True]


async def test_nothing_that_callers_make_long_is_kept(transit: Transit) -> None:
    """Contexts and the versions that a batch names are theirs to choose: many long ones must not fill memory."""
    await transit("CreateKey", name="k", derived=True)
    for size in (256, 257):
        ciphertext = await transit.encrypt("k", b"text", context=b"c" * size)
        assert await transit.decrypt("k", ciphertext, context=b"c" * size) == b"text"
    keyset = await Keys(transit.store, 1).keyset("mount-1", "k", (1,))
    assert keyset is not None
    assert [len(context) for context in keyset.version(1)._contexts] == [256]

    named = [cipher_pb2.DecryptItem(ciphertext=f"vault:v{n}:AAAA") for n in range(1, 200)]
    await transit("Decrypt", name="k", batch_input=named)
    made = transit.store.made()
    assert made is not None
    assert max(len(versions) for _, _, versions in made) == 1


def test_no_key_is_printed() -> None:
    version = new_version(TYPES["aes256-gcm96"], 1.0)
    for text in (
        repr(version),
        repr(Loaded(TYPES["aes256-gcm96"], version, derived=False, convergent=False)),
    ):
        assert version.secret.hex() not in text and repr(version.secret)[2:-1] not in text
    assert Version(1.0, b"s3cret-key").__repr__().find("s3cret") == -1

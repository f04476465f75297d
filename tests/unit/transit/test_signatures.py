"""Signatures and HMACs of the transit service."""

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.transit.test_service import Transit, refused

from strongroom.transit.v1 import cipher_pb2, signature_pb2, stream_pb2
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset
from strongroom_transit.domain.kinds import TYPES
from strongroom_transit.domain.material import Loaded, Version, private_der, public_der
from strongroom_transit.domain.signatures import Scheme, make_hmac, sign, verify
from strongroom_transit.storage import Keys

SIGNERS = sorted(name for name, kind in TYPES.items() if kind.signs)
SCHEMES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in SIGNERS),
    ("rsa-2048", {"signature_algorithm": "pkcs1v15"}),
    ("rsa-2048", {"salt_length": "hash", "hash_algorithm": "sha2-512"}),
    ("rsa-2048", {"salt_length": "20"}),
    ("ecdsa-p256", {"marshaling_algorithm": "jws"}),
    ("ecdsa-p521", {"marshaling_algorithm": "jws", "hash_algorithm": "sha3-384"}),
    ("ed25519", {"context": b"ctx"}),
]


@pytest.fixture
def transit() -> Transit:
    return Transit()


@pytest.mark.parametrize(("kind", "scheme"), SCHEMES)
async def test_a_signature_is_good_for_what_was_signed_alone(
    transit: Transit, kind: str, scheme: dict[str, Any]
) -> None:
    await transit("CreateKey", name="k", type=kind, derived="context" in scheme)
    made = await transit("Sign", name="k", input=b"text", **scheme)
    assert made.signature.startswith("vault:v1:")
    assert made.HasField("public_key") is ("context" in scheme)
    await transit("RotateKey", name="k")

    async def valid(data: bytes, signature: str, **other: Any) -> bool:
        answer = await transit(
            "Verify", name="k", input=data, signature=signature, **{**scheme, **other}
        )
        return bool(answer.valid)

    assert await valid(b"text", made.signature)
    assert not await valid(b"other", made.signature)
    assert not await valid(b"text", made.signature.replace("v1", "v2"))
    if "context" in scheme:
        assert not await valid(b"text", made.signature, context=b"other")


@pytest.mark.parametrize("kind", ["rsa-2048", "ecdsa-p256"])
async def test_a_hash_is_signed_as_what_it_is_the_hash_of(transit: Transit, kind: str) -> None:
    await transit("CreateKey", name="k", type=kind)
    digest = hashlib.sha256(b"text").digest()
    made = await transit("Sign", name="k", input=digest, prehashed=True)
    assert (await transit("Verify", name="k", input=b"text", signature=made.signature)).valid
    await refused(transit("Sign", name="k", input=b"", prehashed=True), "input")


@pytest.mark.parametrize(
    ("kind", "given", "same"),
    [
        ("ecdsa-p256", b"x", b"x".rjust(32, b"\0")),
        ("ecdsa-p256", b"x" * 44, b"x" * 32),  # a hash in base64 that was taken for the hash
        ("ecdsa-p384", b"x" * 1_000, b"x" * 48),
        ("ecdsa-p521", b"x", b"x".rjust(64, b"\0")),
    ],
)
async def test_ecdsa_takes_what_is_no_hash_for_the_number_that_it_is(
    transit: Transit, kind: str, given: bytes, same: bytes
) -> None:
    """As in Vault: by the length of the curve's order. Clients sign such things, if by mistake."""
    await transit("CreateKey", name="k", type=kind)
    made = await transit("Sign", name="k", input=given, prehashed=True)
    for data, valid in ((given, True), (same, True), (b"y" + same[1:], False)):
        answer = await transit(
            "Verify", name="k", input=data, signature=made.signature, prehashed=True
        )
        assert answer.valid is valid
    assert not (await transit("Verify", name="k", input=given, signature=made.signature)).valid


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519", "ml-dsa"])
async def test_keys_of_one_scheme_pass_over_the_name_of_another(
    transit: Transit, kind: str
) -> None:
    """Clients name a hash there."""
    await transit("CreateKey", name="k", type=kind)
    made = await transit("Sign", name="k", input=b"text", signature_algorithm="sha2-512")
    about = {"signature": made.signature, "signature_algorithm": "sha2-512"}
    assert (await transit("Verify", name="k", input=b"text", **about)).valid


async def test_what_is_no_hash_is_refused_where_it_cannot_be_signed(transit: Transit) -> None:
    await transit("CreateKey", name="e", type="ecdsa-p521")
    await transit("CreateKey", name="r", type="rsa-2048")
    await refused(transit("Sign", name="e", input=b"x" * 65, prehashed=True), "input")
    await refused(transit("Sign", name="r", input=b"short", prehashed=True), "input")


async def test_what_is_hashed_already_may_be_any_hash_for_ecdsa(transit: Transit) -> None:
    """Its signatures do not say which; those of RSA do."""
    await transit("CreateKey", name="e", type="ecdsa-p384")
    await transit("CreateKey", name="r", type="rsa-2048")
    digest = hashlib.sha512(b"text").digest()
    made = await transit("Sign", name="e", input=digest, prehashed=True)
    about = {"signature": made.signature, "hash_algorithm": "sha2-512"}
    assert (await transit("Verify", name="e", input=b"text", **about)).valid
    await refused(transit("Sign", name="r", input=digest, prehashed=True), "input")


async def test_salts_are_named_as_vault_names_them(transit: Transit) -> None:
    await transit("CreateKey", name="k", type="rsa-2048")

    async def valid(made: str, asked: str) -> bool:
        signed = await transit("Sign", name="k", input=b"text", salt_length=made)
        about = {"signature": signed.signature, "salt_length": asked}
        return bool((await transit("Verify", name="k", input=b"text", **about)).valid)

    for asked in ("", "auto", "AUTO", "0"):
        assert await valid("0", asked)
        assert await valid("Hash", asked)
    assert await valid("-1", "hash")
    assert await valid("-1", "32")
    assert not await valid("0", "-1")
    assert not await valid("hash", "20")


async def test_nothing_else_reads_as_a_signature_of_jws(transit: Transit) -> None:
    await transit("CreateKey", name="k", type="ecdsa-p256")
    made = await transit("Sign", name="k", input=b"text", marshaling_algorithm="jws")
    about = {"name": "k", "input": b"text", "marshaling_algorithm": "jws"}
    assert (await transit("Verify", signature=made.signature, **about)).valid
    for other in (f"{made.signature}==", f"{made.signature}%", f"{made.signature}\n"):
        await refused(transit("Verify", signature=other, **about), "signature")


async def test_others_can_verify_with_the_public_key(transit: Transit) -> None:
    await transit("CreateKey", name="k", type="ecdsa-p256")
    shown = json.loads((await transit("ReadKey", name="k")).key.keys)["1"]["public_key"]
    public = serialization.load_pem_public_key(shown.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signature = (await transit("Sign", name="k", input=b"text")).signature
    public.verify(b64decode(signature[9:]), b"text", ec.ECDSA(hashes.SHA256()))


def keyset(kind: str, version: Version) -> Keyset:
    key = Key("uuid", kind, latest=1)
    return Keyset(key, {1: Loaded(key.kind, version, derived=False, convergent=False)})


def test_ed25519_signs_as_rfc_8032_says() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    private = Ed25519PrivateKey.from_private_bytes(seed)
    version = Version(0.0, private_der(private), public_der(private.public_key()))
    keys = keyset("ed25519", version)
    signed = sign(keys, bytes.fromhex("af82"), b"", 0, Scheme())
    assert b64decode(signed.signature[9:]).hex() == (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert verify(keys, bytes.fromhex("af82"), signed.signature, b"", Scheme())


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha2-256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            "sha2-512",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
            "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ],
)
def test_hmacs_are_those_of_rfc_4231(algorithm: str, digest: str) -> None:
    keys = keyset("hmac", Version(0.0, b"Jefe", b"", b"Jefe"))
    made = make_hmac(keys, b"what do ya want for nothing?", 0, algorithm)
    assert b64decode(made.removeprefix("vault:v1:")).hex() == digest


async def test_every_version_has_an_hmac_key(transit: Transit) -> None:
    await transit("CreateKey", name="k")
    first = (await transit("Hmac", name="k", input=b"text", algorithm="sha3-256")).hmac
    keys = await Keys(transit.store, 5).keyset("mount-1", "k", {1})
    assert keys is not None
    version = keys.version(1).version
    assert version.hmac_key != version.secret
    assert b64decode(first[9:]) == hmac.digest(version.hmac_key, b"text", "sha3_256")
    await transit("RotateKey", name="k")

    async def valid(**fields: Any) -> bool:
        return bool((await transit("Verify", name="k", input=b"text", **fields)).valid)

    assert await valid(hmac=first, hash_algorithm="sha3-256")
    assert not await valid(hmac=first, hash_algorithm="sha2-256")
    assert not await valid(hmac=first.replace("v1", "v2"), hash_algorithm="sha3-256")
    await transit("ConfigureKey", name="k", min_decryption_version=2)
    await refused(valid(hmac=first, hash_algorithm="sha3-256"), "too old")


async def test_batches_say_of_each_item_what_became_of_it(transit: Transit) -> None:
    await transit("CreateKey", name="k", type="ed25519")
    items = [signature_pb2.SignItem(input=b"%d" % n, reference=str(n)) for n in range(6)]
    items[2].ClearField("input")
    signed = await transit("Sign", name="k", batch_input=items)
    assert [r.HasField("error") for r in signed.batch_results] == [n == 2 for n in range(6)]
    assert signed.status == 0
    checks = [
        signature_pb2.VerifyItem(input=b"%s" % r.reference.encode(), signature=r.signature)
        for r in signed.batch_results
        if not r.HasField("error")
    ]
    checks[0].input = b"other"
    checks.append(signature_pb2.VerifyItem(input=b"x"))
    verified = await transit("Verify", name="k", batch_input=checks)
    assert [r.valid for r in verified.batch_results] == [False, True, True, True, True, False]
    assert verified.batch_results[-1].HasField("error")


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("aes256-gcm96", {}, "does not support signing"),
        ("rsa-2048", {"hash_algorithm": "md5"}, "hash_algorithm"),
        ("rsa-2048", {"hash_algorithm": "none"}, "hash_algorithm"),
        ("rsa-2048", {"signature_algorithm": "raw"}, "signature_algorithm"),
        ("rsa-2048", {"salt_length": "-2"}, "salt_length"),
        ("rsa-2048", {"salt_length": "9999"}, "input"),
        ("ecdsa-p256", {"marshaling_algorithm": "xml"}, "marshaling_algorithm"),
        ("ed25519", {"prehashed": True}, "prehashed"),
        ("ed25519", {"key_version": 3}, "key_version"),
    ],
)
async def test_what_cannot_be_signed_is_named(
    transit: Transit, kind: str, fields: dict[str, Any], says: str
) -> None:
    await transit("CreateKey", name="k", type=kind)
    await refused(transit("Sign", name="k", input=b"x", **fields), says)


@pytest.mark.parametrize(
    "signature", ["", "nonsense", "vault:v1:%%%", "vault:vx:AAAA", "vault:v7:AAAA"]
)
async def test_a_malformed_signature_is_an_error(transit: Transit, signature: str) -> None:
    await transit("CreateKey", name="k", type="ed25519")
    says = "signature"
    await refused(transit("Verify", name="k", input=b"x", signature=signature), says)


async def test_random_and_hash(transit: Transit) -> None:
    assert len(b64decode((await transit("Random", bytes="48")).random_bytes)) == 48
    digest = hashlib.sha3_512(b"x").digest()
    await refused(transit("Hash"), "input: is missing")
    answer = await transit("Hash", algorithm="sha3-512", input=b"x", format="base64")
    assert answer.sum == b64encode(digest).decode()


@pytest.mark.parametrize(("kind", "scheme"), SCHEMES)
async def test_what_a_stream_signs_is_what_single_requests_verify(
    transit: Transit, kind: str, scheme: dict[str, Any]
) -> None:
    scheme = dict(scheme)
    context = scheme.pop("context", b"")
    await transit("CreateKey", name="k", type=kind, derived=bool(context))
    items = [
        stream_pb2.SignStreamItem(input=b"%d" % n, context=context, reference=str(n))
        for n in range(6)
    ]
    made = await transit("SignStream", name="k", items=items, **scheme)
    assert made.key_version == 1
    assert [each.reference for each in made.items] == [str(n) for n in range(6)]
    for number, each in enumerate(made.items):
        assert bool(each.publickey) is bool(context)
        fields = {"input": b"%d" % number, "signature": each.signature, "context": context}
        assert (await transit("Verify", name="k", **fields, **scheme)).valid


async def test_a_stream_says_what_is_wrong_with_an_item_and_signs_the_others(
    transit: Transit,
) -> None:
    await transit("CreateKey", name="k", type="ecdsa-p256")
    items = [stream_pb2.SignStreamItem(input=b"x" * size) for size in (32, 0, 32)]
    made = await transit("SignStream", name="k", items=items, prehashed=True)
    assert [bool(each.signature) for each in made.items] == [True, False, True]
    assert "input: does not fit" in made.items[1].error
    await transit("CreateKey", name="a", type="aes256-gcm96")
    await refused(transit("SignStream", name="a", items=items), "does not support signing")
    await refused(transit("SignStream", name="none", items=items), "key not found")
    await refused(transit("SignStream", name="k", items=items, key_version=2), "key_version")


@pytest.mark.parametrize("algorithm", ["", "sha2-512", "sha3-256"])
async def test_hmacs_of_a_stream_are_those_of_single_requests(
    transit: Transit, algorithm: str
) -> None:
    await transit("CreateKey", name="k", type="hmac", key_size=64)
    items = [stream_pb2.HmacStreamItem(input=b"%d" % n, reference=str(n)) for n in range(6)]
    made = await transit("HmacStream", name="k", items=items, algorithm=algorithm)
    single = [
        (await transit("Hmac", name="k", input=item.input, algorithm=algorithm)).hmac
        for item in items
    ]
    assert [each.hmac for each in made.items] == single
    await refused(transit("HmacStream", name="k", items=items, algorithm="md5"), "algorithm")


async def test_the_status_of_a_batch_that_failed_in_part_may_be_chosen(transit: Transit) -> None:
    await transit("CreateKey", name="k", type="ecdsa-p256")
    await transit("CreateKey", name="c", type="aes128-cmac")
    requests: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("Sign", "k", signature_pb2.SignItem, {"input": b"x"}),
        ("Verify", "k", signature_pb2.VerifyItem, {"input": b"x", "hmac": "vault:v1:AAAA"}),
        ("Hmac", "k", signature_pb2.HmacItem, {"input": b"x"}),
        ("Cmac", "c", signature_pb2.CmacItem, {"input": b"x"}),
    ]
    for method, name, item, good in requests:
        # Without a wish it is that of success, as in Vault.
        batch = {"name": name, "batch_input": [item(**good), item()]}
        chosen = await transit(method, **batch, partial_failure_response_code=207)
        assert chosen.status == 207, method
        assert (await transit(method, **batch)).status == 0
        await refused(
            transit(method, **batch, partial_failure_response_code=204), "takes an HTTP status"
        )
        bad = await transit(
            method, name=name, batch_input=[item()], partial_failure_response_code=207
        )
        assert bad.status == 400


async def test_text_that_came_from_files_may_have_line_ends(transit: Transit) -> None:
    for kind in ("ecdsa-p256", "rsa-2048"):
        await transit("CreateKey", name=kind, type=kind)
        signature = (await transit("Sign", name=kind, input=b"x")).signature
        broken = f"{signature[:40]}\r\n{signature[40:]}\n"
        assert (await transit("Verify", name=kind, input=b"x", signature=broken)).valid
        hmac = (await transit("Hmac", name=kind, input=b"x")).hmac
        assert (await transit("Verify", name=kind, input=b"x", hmac=f"{hmac}\n")).valid
        await refused(transit("Verify", name=kind, input=b"x", hmac=f"{hmac} "), "base64")
    await transit("CreateKey", name="a")
    ciphertext = await transit.encrypt("a", b"x")
    assert await transit.decrypt("a", f"{ciphertext[:30]}\n{ciphertext[30:]}\n") == b"x"
    await refused(transit("Decrypt", name="a", ciphertext=f"{ciphertext} "), "base64")


async def test_results_of_failed_items_have_what_vault_has_there(transit: Transit) -> None:
    await transit("CreateKey", name="a")
    await transit("CreateKey", name="e", type="ed25519")
    opened = await transit("Decrypt", name="a", batch_input=[cipher_pb2.DecryptItem()])
    assert opened.batch_results[0].HasField("plaintext")
    signed = await transit("Sign", name="e", batch_input=[signature_pb2.SignItem()])
    assert signed.batch_results[0].HasField("key_version")
    checked = await transit("Verify", name="e", batch_input=[signature_pb2.VerifyItem()])
    assert checked.batch_results[0].HasField("valid")
    assert not checked.batch_results[0].valid


async def test_the_public_key_of_a_context_has_vaults_name(transit: Transit) -> None:
    await transit("CreateKey", name="e", type="ed25519", derived=True)
    made = await transit("Sign", name="e", input=b"x", context=b"ctx")
    assert made.public_key
    batch = await transit("Sign", name="e", batch_input=[{"input": b"x", "context": b"ctx"}])
    assert batch.batch_results[0].publickey == made.public_key

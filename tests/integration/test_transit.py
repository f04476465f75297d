"""Encryption as a service: bao, hvac and a generated client, over both wires."""

import asyncio
import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import hvac
import pytest

from strongroom.transit.v1 import cipher_pb2, cipher_pb2_grpc, stream_pb2, stream_pb2_grpc
from strongroom_client.envelope import Envelope
from tests.integration.platforms import ROOT, Platform, b64
from tests.integration.test_grpc import AS_ROOT, code_of, stub


@pytest.fixture
def mount(platform: Platform) -> Iterator[str]:
    assert platform.http("POST", "sys/mounts/transit", json={"type": "transit"}).ok
    yield "transit"
    assert platform.http("DELETE", "sys/mounts/transit").ok


def test_bao_encrypts_rotates_and_rewraps(platform: Platform, mount: str) -> None:
    def bao(*arguments: str) -> str:
        return platform.bao(*arguments).strip()

    bao("write", "-f", "transit/keys/orders")
    plain = b64(b"4111 1111 1111 1111")
    first = bao("write", "-field=ciphertext", "transit/encrypt/orders", f"plaintext={plain}")
    bao("write", "-f", "transit/keys/orders/rotate")
    newer = bao("write", "-field=ciphertext", "transit/rewrap/orders", f"ciphertext={first}")
    assert (first[:9], newer[:9]) == ("vault:v1:", "vault:v2:")
    for text in (first, newer):
        opened = bao("write", "-field=plaintext", "transit/decrypt/orders", f"ciphertext={text}")
        assert opened == plain
    assert bao("list", "-format=json", "transit/keys") == '[\n  "orders"\n]'
    kept = platform.run_bao("delete", "transit/keys/orders")
    assert (kept.returncode, "deletion is not allowed" in kept.stderr) == (2, True)


def test_hvac(platform: Platform, mount: str) -> None:
    client = platform.hvac()
    transit = client.secrets.transit
    transit.create_key("k", key_type="chacha20-poly1305")
    sealed = transit.encrypt_data("k", plaintext=b64(b"x"))["data"]["ciphertext"]
    assert transit.decrypt_data("k", sealed)["data"]["plaintext"] == b64(b"x")
    batch = transit.encrypt_data("k", batch_input=[{"plaintext": b64(b"a"), "reference": "1"}])
    assert batch["data"]["batch_results"][0]["reference"] == "1"
    transit.rotate_key("k")
    transit.update_key_configuration("k", min_decryption_version=2, deletion_allowed=True)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="too old"):
        transit.decrypt_data("k", sealed)
    data_key = transit.generate_data_key("k", key_type="plaintext")["data"]
    opened = transit.decrypt_data("k", data_key["ciphertext"])["data"]["plaintext"]
    assert opened == data_key["plaintext"]
    assert transit.read_key("k")["data"]["latest_version"] == 2
    transit.delete_key("k")
    with pytest.raises(hvac.exceptions.InvalidPath):
        transit.read_key("k")


def test_the_good_items_of_a_batch_are_done(platform: Platform, mount: str) -> None:
    platform.http("POST", "transit/keys/k")
    items: list[Any] = [{"plaintext": b64(b"%d" % n)} for n in range(10_000)]
    items[4_000] = {"plaintext": "!no base64!"}
    answer = platform.http("POST", "transit/encrypt/k", json={"batch_input": items})
    results = answer.json()["data"]["batch_results"]
    assert (answer.status_code, len(results)) == (400, 10_000)
    assert [n for n, result in enumerate(results) if "error" in result] == [4_000]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("encrypt/k", {"plaintext": "%%"}, "plaintext"),
        ("encrypt/k", {}, "plaintext"),
        ("encrypt/k", {"plaintext": "eA==", "key_version": 7}, "key_version"),
        ("decrypt/none", {"ciphertext": "vault:v1:AAAA"}, "not found"),
        ("decrypt/k", {"ciphertext": "nonsense"}, "ciphertext"),
        ("decrypt/k", {"ciphertext": "vault:v1:AAAA"}, "ciphertext"),
        ("keys/bad%20name", {}, "name"),
        ("keys/n", {"type": "rot13"}, "type"),
    ],
)
def test_bad_input_is_named(
    platform: Platform, mount: str, path: str, body: dict[str, Any], says: str
) -> None:
    platform.http("POST", "transit/keys/k")
    answer = platform.http("POST", f"transit/{path}", json=body)
    assert answer.status_code == 400
    assert says in answer.json()["errors"][0]


def test_policies_decide_over_grpc(platform: Platform, mount: str) -> None:
    policy = 'path "transit/encrypt/k" { capabilities = ["update"] }'
    platform.http("POST", "sys/policies/acl/sealer", json={"policy": policy})
    platform.http("POST", "transit/keys/k")
    made = platform.http("POST", "auth/token/create", json={"policies": ["sealer"]})
    sealer = (("x-vault-token", made.json()["auth"]["client_token"]),)
    with platform.channel() as channel:
        ciphers = stub(cipher_pb2_grpc.CipherServiceStub, channel)
        request = cipher_pb2.EncryptRequest(mount="transit", name="k", plaintext=b"x")
        sealed = ciphers.Encrypt(request, metadata=sealer).ciphertext
        opening = cipher_pb2.DecryptRequest(mount="transit", name="k", ciphertext=sealed)
        with pytest.raises(grpc.RpcError) as caught:
            ciphers.Decrypt(opening, metadata=sealer)
        assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED
        assert ciphers.Decrypt(opening, metadata=AS_ROOT).plaintext == b"x"


def test_streams_of_items_and_of_bytes(platform: Platform, mount: str) -> None:
    platform.http("POST", "transit/keys/k")

    def batches() -> Iterator[stream_pb2.EncryptStreamRequest]:
        for number in range(20):
            items = [
                stream_pb2.EncryptStreamItem(plaintext=b"%d" % n, reference=f"{number}-{n}")
                for n in range(500)
            ]
            yield stream_pb2.EncryptStreamRequest(mount="transit", name="k", items=items)

    with platform.channel() as channel:
        streams = stub(stream_pb2_grpc.TransitStreamServiceStub, channel)
        answers = list(streams.EncryptStream(batches(), metadata=AS_ROOT))
        assert [a.items[0].reference for a in answers] == [f"{n}-0" for n in range(20)]
        back = (
            stream_pb2.DecryptStreamRequest(
                mount="transit",
                name="k",
                items=[stream_pb2.DecryptStreamItem(ciphertext=i.ciphertext) for i in answer.items],
            )
            for answer in answers
        )
        opened = [r for a in streams.DecryptStream(back, metadata=AS_ROOT) for r in a.items]
        assert [r.plaintext for r in opened] == [b"%d" % n for n in range(500)] * 20
        cipher = stub(stream_pb2_grpc.StreamCipherServiceStub, channel)
        pieces = [b"a" * 1_000_000, b"b" * 1_000_000]
        ask = stream_pb2.StreamCipherServiceEncryptRequest
        sealed = list(
            cipher.Encrypt(
                (ask(mount="transit", name="k", data=piece) for piece in pieces), metadata=AS_ROOT
            )
        )
        give = stream_pb2.StreamCipherServiceDecryptRequest
        plain = cipher.Decrypt(
            (give(mount="transit", name="k", data=m.data) for m in sealed), metadata=AS_ROOT
        )
        assert b"".join(m.data for m in plain) == b"".join(pieces)
    log = platform.audit_log.read_text()
    assert ROOT not in log


def test_streams_of_signatures_and_hmacs(platform: Platform, mount: str) -> None:
    platform.http("POST", "transit/keys/signer", json={"type": "ed25519"})
    texts = [[b"%d-%d" % (batch, n) for n in range(100)] for batch in range(5)]
    with platform.channel() as channel:
        streams = stub(stream_pb2_grpc.TransitStreamServiceStub, channel)
        ask, item = stream_pb2.SignStreamRequest, stream_pb2.SignStreamItem
        batches = [ask(items=[item(input=text) for text in batch]) for batch in texts]
        batches[0].mount, batches[0].name = "transit", "signer"
        signed = [r for a in streams.SignStream(iter(batches), metadata=AS_ROOT) for r in a.items]
        ask_hmac, hmac_item = stream_pb2.HmacStreamRequest, stream_pb2.HmacStreamItem
        wanted = ask_hmac(
            mount="transit",
            name="signer",
            items=[hmac_item(input=texts[0][0])],
            algorithm="sha2-512",
        )
        (hmacs,) = streams.HmacStream(iter([wanted]), metadata=AS_ROOT)
    flat = [text for batch in texts for text in batch]
    checks = [
        {"input": b64(text), "signature": each.signature}
        for text, each in zip(flat, signed, strict=True)
    ]
    checks.append({"input": b64(b"other"), "signature": signed[0].signature})
    checks.append({"input": b64(flat[0]), "hmac": hmacs.items[0].hmac})
    answer = platform.http(
        "POST", "transit/verify/signer", json={"batch_input": checks, "algorithm": "sha2-512"}
    )
    valid = [each["valid"] for each in answer.json()["data"]["batch_results"]]
    assert valid == [True] * 500 + [False, True]


def test_hvac_signs_and_makes_hmacs(platform: Platform, mount: str) -> None:
    transit = platform.hvac().secrets.transit
    for kind in ("ed25519", "ecdsa-p256", "rsa-2048"):
        transit.create_key(kind, key_type=kind)
        made = transit.sign_data(kind, hash_input=b64(b"x"), hash_algorithm="sha2-512")
        signature = made["data"]["signature"]
        for data, good in ((b"x", True), (b"y", False)):
            answer = transit.verify_signed_data(
                kind, hash_input=b64(data), signature=signature, hash_algorithm="sha2-512"
            )
            assert answer["data"]["valid"] is good
    made = transit.generate_hmac("ed25519", hash_input=b64(b"x"), algorithm="sha2-384")
    answer = transit.verify_signed_data(
        "ed25519", hash_input=b64(b"x"), hmac=made["data"]["hmac"], hash_algorithm="sha2-384"
    )
    assert answer["data"]["valid"] is True
    assert len(base64.b64decode(transit.generate_random_bytes(16)["data"]["random_bytes"])) == 16
    assert len(transit.hash_data(b64(b"x"), algorithm="sha2-256")["data"]["sum"]) == 64


def test_bao_imports_and_a_backup_moves_a_key(platform: Platform, mount: str) -> None:
    secret = os.urandom(32)
    platform.bao("transit", "import", "transit/keys/k", b64(secret), "exportable=true")
    platform.bao("transit", "import-version", "transit/keys/k", b64(os.urandom(32)))
    transit = platform.hvac().secrets.transit
    exported = transit.export_key("k", "encryption-key", version="1")["data"]["keys"]
    assert exported == {"1": b64(secret)}
    assert transit.read_key("k")["data"]["latest_version"] == 2

    transit.update_key_configuration("k", allow_plaintext_backup=True, deletion_allowed=True)
    sealed = transit.encrypt_data("k", plaintext=b64(b"x"))["data"]["ciphertext"]
    text = transit.backup_key("k")["data"]["backup"]
    transit.restore_key(text, name="moved")
    assert transit.decrypt_data("moved", sealed)["data"]["plaintext"] == b64(b"x")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="name"):
        transit.restore_key(text)
    transit.delete_key("k")
    transit.restore_key(text)
    log = platform.audit_log.read_text()
    assert text not in log
    assert b64(secret) not in log


def test_cmacs_over_http(platform: Platform, mount: str) -> None:
    platform.http("POST", "transit/keys/c", json={"type": "aes256-cmac"})
    made = platform.http("POST", "transit/cmac/c/12", json={"input": b64(b"x")})
    cmac = made.json()["data"]["cmac"]
    assert len(base64.b64decode(cmac.removeprefix("vault:v1:"))) == 12
    asked = {"input": b64(b"x"), "cmac": cmac, "mac_length": 12}
    assert platform.http("POST", "transit/verify/c", json=asked).json()["data"]["valid"] is True


def test_encrypting_makes_keys_for_those_who_may_create(platform: Platform, mount: str) -> None:
    for _ in range(2):
        platform.http("POST", "transit/encrypt/upserted", json={"plaintext": b64(b"x")})
    policy = 'path "transit/encrypt/*" { capabilities = ["update"] }'
    platform.http("POST", "sys/policies/acl/updates", json={"policy": policy})
    made = platform.http("POST", "auth/token/create", json={"policies": ["updates"]})
    token = made.json()["auth"]["client_token"]
    body = {"plaintext": b64(b"x")}
    refused = platform.http("POST", "transit/encrypt/other", json=body, token=token)
    assert refused.status_code == 403
    assert platform.http("POST", "transit/encrypt/upserted", json=body, token=token).ok


def test_what_the_client_encrypts_the_platform_opens_and_the_other_way_round(
    platform: Platform, mount: str, tmp_path: Path
) -> None:
    platform.http("POST", "transit/keys/envelope")
    plain, sealed, back = (tmp_path / name for name in ("plain", "sealed", "back"))
    plain.write_bytes(os.urandom(300_000))
    about = {"mount": "transit", "name": "envelope", "associated_data": b"who"}

    async def work() -> None:
        credentials = grpc.ssl_channel_credentials(Path(platform.ca).read_bytes())
        async with grpc.aio.secure_channel(platform.grpc_address, credentials) as channel:
            envelope = Envelope(channel, lambda: ROOT, "envelope")
            await envelope.encrypt_file(plain, sealed, associated_data=b"who")
            platform.http("POST", "transit/keys/envelope/rotate")
            assert await envelope.rewrap_file(sealed)
            platform.http(
                "POST", "transit/keys/envelope/config", json={"min_decryption_version": 2}
            )
            await envelope.decrypt_file(sealed, back, associated_data=b"who")
            assert back.read_bytes() == plain.read_bytes()
            cipher = stream_pb2_grpc.StreamCipherServiceStub(channel)
            give: Any = stream_pb2.StreamCipherServiceDecryptRequest
            answers = cipher.Decrypt(
                iter([give(data=sealed.read_bytes(), **about)]), metadata=AS_ROOT
            )
            assert b"".join([a.data async for a in answers]) == plain.read_bytes()
            ask: Any = stream_pb2.StreamCipherServiceEncryptRequest
            made = cipher.Encrypt(iter([ask(data=plain.read_bytes(), **about)]), metadata=AS_ROOT)
            sealed.write_bytes(b"".join([a.data async for a in made]))
            await envelope.decrypt_file(sealed, back, associated_data=b"who")
            assert back.read_bytes() == plain.read_bytes()

    asyncio.run(work())

"""What OpenBao encrypts, signs and authenticates with a key opens here with the same key, and the other way round."""

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest
from cryptography.hazmat.primitives import serialization

from strongroom.transit.v1 import cipher_pb2
from strongroom_transit.domain import ciphers, signatures
from strongroom_transit.domain.backups import backup, restored
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset
from strongroom_transit.domain.kinds import TYPES, Family
from strongroom_transit.domain.material import (
    Loaded,
    Version,
    new_version,
    private_der,
    public_der,
)
from strongroom_transit.domain.signatures import Scheme
from strongroom_transit.domain.transfer import wrap
from tests.integration.openbao import TOKEN, openbao
from tests.integration.platforms import b64
from tests.unit.transit.test_service import Transit

CIPHERS = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "rsa-2048"]
SIGNERS = ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"]


@pytest.fixture(scope="module")
def bao(shared_folder: Path) -> Iterator[Any]:
    with openbao(shared_folder) as address:
        client = hvac.Client(url=address, token=TOKEN)
        client.sys.enable_secrets_engine("transit")
        yield client


def brought_along(bao: Any, kind: str, **settings: Any) -> tuple[Any, Keyset]:
    """Makes a key in OpenBao and returns its client and the same key as ours."""
    transit, name = bao.secrets.transit, f"{kind}-{len(settings)}"
    body = {
        "type": kind,
        "exportable": True,
        **settings,
    }  # the client refuses types newer than itself
    bao.adapter.post(f"/v1/transit/keys/{name}", json=body)
    use = "signing-key" if kind in SIGNERS and kind != "rsa-2048" else "encryption-key"
    exported = transit.export_key(name, use)["data"]["keys"]["1"]
    hmac_key = b64decode(transit.export_key(name, "hmac-key")["data"]["keys"]["1"])
    key = Key(
        "uuid",
        kind,
        latest=1,
        derived=settings.get("derived", False),
        convergent=settings.get("convergent_encryption", False),
    )
    if key.kind.symmetric:
        version = Version(0.0, b64decode(exported), b"", hmac_key)
    else:
        private: Any
        if kind == "ed25519":
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            private = Ed25519PrivateKey.from_private_bytes(b64decode(exported)[:32])
        else:
            private = serialization.load_pem_private_key(exported.encode(), None)
        version = Version(0.0, private_der(private), public_der(private.public_key()), hmac_key)
    loaded = Loaded(key.kind, version, derived=key.derived, convergent=key.convergent)
    return (transit, name), Keyset(key, {1: loaded})


@pytest.mark.parametrize("kind", CIPHERS)
def test_ciphertexts(bao: Any, kind: str) -> None:
    (transit, name), keyset = brought_along(bao, kind)
    theirs = transit.encrypt_data(name, plaintext=b64(b"text"))["data"]["ciphertext"]
    assert ciphers.decrypt(keyset, cipher_pb2.DecryptItem(ciphertext=theirs)) == b"text"
    ours = ciphers.encrypt(keyset, cipher_pb2.EncryptItem(plaintext=b"text")).ciphertext
    assert transit.decrypt_data(name, ours)["data"]["plaintext"] == b64(b"text")


@pytest.mark.parametrize("kind", ["aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"])
@pytest.mark.parametrize("convergent", [False, True])
def test_ciphertexts_of_derived_keys(bao: Any, kind: str, convergent: bool) -> None:
    settings: dict[str, Any] = {"derived": True}
    if convergent:
        settings["convergent_encryption"] = True
    (transit, name), keyset = brought_along(bao, kind, **settings)
    theirs = transit.encrypt_data(name, plaintext=b64(b"text"), context=b64(b"ctx"))["data"]
    item = cipher_pb2.DecryptItem(ciphertext=theirs["ciphertext"], context=b"ctx")
    assert ciphers.decrypt(keyset, item) == b"text"
    made = ciphers.encrypt(keyset, cipher_pb2.EncryptItem(plaintext=b"text", context=b"ctx"))
    assert (made.ciphertext == theirs["ciphertext"]) is convergent
    opened = transit.decrypt_data(name, made.ciphertext, context=b64(b"ctx"))
    assert opened["data"]["plaintext"] == b64(b"text")


@pytest.mark.parametrize("kind", ["aes256-gcm96", "chacha20-poly1305"])
def test_convergent_ciphertexts_with_associated_data(bao: Any, kind: str) -> None:
    """They open on both sides; the nonce is ours alone, since OpenBao's is that of other associated data too."""
    (transit, name), keyset = brought_along(bao, kind, derived=True, convergent_encryption=True)
    theirs, ours = set(), set()
    for data in (b"one", b"two"):
        with_all = {"context": b64(b"ctx"), "associated_data": b64(data)}
        made = transit.encrypt_data(name, plaintext=b64(b"text"), **with_all)["data"]["ciphertext"]
        theirs.add(b64decode(made[9:])[:12])
        ask = cipher_pb2.DecryptItem(ciphertext=made, context=b"ctx", associated_data=data)
        assert ciphers.decrypt(keyset, ask) == b"text"
        give = cipher_pb2.EncryptItem(plaintext=b"text", context=b"ctx", associated_data=data)
        made = ciphers.encrypt(keyset, give).ciphertext
        ours.add(b64decode(made[9:])[:12])
        opened = transit.decrypt_data(name, made, **with_all)["data"]["plaintext"]
        assert opened == b64(b"text")
    assert (len(theirs), len(ours)) == (1, 2)


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize("marshaling", ["asn1", "jws"])
def test_signatures_and_hmacs(bao: Any, kind: str, marshaling: str) -> None:
    settings: dict[str, Any] = {"allow_plaintext_backup": True} if marshaling == "jws" else {}
    (transit, name), keyset = brought_along(bao, kind, **settings)
    scheme = Scheme("sha2-512", marshaling=marshaling)
    options = {"hash_algorithm": "sha2-512", "marshaling_algorithm": marshaling}
    if kind in ("ed25519", "rsa-2048"):
        scheme, options = Scheme("sha2-512"), {"hash_algorithm": "sha2-512"}
    theirs = transit.sign_data(name, hash_input=b64(b"text"), **options)["data"]["signature"]
    assert signatures.verify(keyset, b"text", theirs, b"", scheme)
    ours = signatures.sign(keyset, b"text", b"", 0, scheme).signature
    checked = transit.verify_signed_data(name, hash_input=b64(b"text"), signature=ours, **options)
    assert checked["data"]["valid"] is True
    hmac = transit.generate_hmac(name, hash_input=b64(b"text"), algorithm="sha2-384")
    assert hmac["data"]["hmac"] == signatures.make_hmac(keyset, b"text", 0, "sha2-384")


SCHEMES: dict[str, list[dict[str, Any]]] = {
    "ed25519": [{}],
    "ecdsa": [{"marshaling_algorithm": "jws", "hash_algorithm": "sha3-256"}, {"prehashed": True}],
    "rsa": [
        {"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha1"},
        {"salt_length": "hash", "hash_algorithm": "sha2-384"},
        {"salt_length": "0"},
    ],
}


def material(kind: str) -> bytes:
    private = new_version(TYPES[kind], 0.0).secret
    return b"m" * 64 if kind == "hmac" else private


@pytest.mark.parametrize("kind", [*CIPHERS, *SIGNERS[:-1], "rsa-3072", "rsa-4096", "hmac"])
@pytest.mark.parametrize("derived", [False, True])
async def test_a_key_that_is_imported_on_both_sides_is_one_key(
    bao: Any, kind: str, derived: bool
) -> None:
    family = TYPES[kind].family
    if derived and family is not Family.AEAD:  # the others are not derived there, or unusable then
        return
    ours, brought = Transit(), material(kind)
    name, hash_name = f"imported-{kind}-{derived}", "SHA384"

    async def wrapped(pem: str) -> bytes:
        return wrap(serialization.load_pem_public_key(pem.encode()), brought, hash_name)

    settings = {"type": kind, "derived": derived, "hash_function": hash_name}
    pem = bao.adapter.get("/v1/transit/wrapping_key")["data"]["public_key"]
    theirs = {**settings, "ciphertext": b64(await wrapped(pem))}
    bao.adapter.post(f"/v1/transit/keys/{name}/import", json=theirs)
    pem = (await ours("ReadWrappingKey")).public_key
    await ours("ImportKey", name=name, ciphertext=await wrapped(pem), **settings)

    def there(path: str, **body: Any) -> Any:
        plain = {
            key: b64(value) if isinstance(value, bytes) else value for key, value in body.items()
        }
        return bao.adapter.post(f"/v1/transit/{path}/{name}", json=plain)["data"]

    if TYPES[kind].encrypts:
        about: dict[str, Any] = {"context": b"ctx"} if derived else {}
        if family is Family.AEAD:
            about["associated_data"] = b"with"
        made = there("encrypt", plaintext=b"text", **about)["ciphertext"]
        assert await ours.decrypt(name, made, **about) == b"text"
        if derived and kind == "aes128-gcm96":
            return  # OpenBao 2.7.2 encrypts with such a key, and then says of it that its length is not correct
        made = await ours.encrypt(name, b"text", **about)
        assert there("decrypt", ciphertext=made, **about)["plaintext"] == b64(b"text")
    for scheme in SCHEMES.get(kind.split("-")[0], []):
        data = b"h" * 48 if "prehashed" in scheme else b"text"
        made = there("sign", input=data, **scheme)["signature"]
        assert (await ours("Verify", name=name, input=data, signature=made, **scheme)).valid
        made = (await ours("Sign", name=name, input=data, **scheme)).signature
        assert there("verify", input=data, signature=made, **scheme)["valid"]
    if kind == "hmac":
        for algorithm in ("sha1", "sha2-256", "sha3-512"):
            made = there("hmac", input=b"text", algorithm=algorithm)["hmac"]
            assert (await ours("Hmac", name=name, input=b"text", algorithm=algorithm)).hmac == made


FREELY = {"exportable": True, "allow_plaintext_backup": True}
KINDS = sorted({*CIPHERS, *SIGNERS, "rsa-3072", "hmac"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("derived", [False, True])
def test_backups_go_both_ways(bao: Any, kind: str, derived: bool) -> None:
    if derived and not TYPES[kind].derives:
        return
    name, url = f"backup-{kind}-{derived}", "/v1/transit"
    settings: dict[str, Any] = {**FREELY, "derived": derived}
    if kind == "hmac":
        settings["key_size"] = 64
    convergent = derived and kind == "aes256-gcm96"
    bao.adapter.post(
        f"{url}/keys/{name}",
        json={"type": kind, "convergent_encryption": convergent, **settings},
    )
    for _ in range(3):
        bao.adapter.post(f"{url}/keys/{name}/rotate")
    versions = {"min_decryption_version": 3, "min_encryption_version": 3}
    bao.adapter.post(f"{url}/keys/{name}/config", json=versions)
    bao.adapter.post(f"{url}/keys/{name}/trim", json={"min_available_version": 2})
    theirs = bao.adapter.get(f"{url}/backup/{name}")["data"]["backup"]

    found = restored(theirs, 0.0)
    key = found.key
    assert (found.name, key.type, key.latest) == (name, kind, 4)
    assert (key.min_decryption, key.min_available, sorted(found.versions)) == (3, 2, [2, 3, 4])
    loaded = {
        number: Loaded(key.kind, version, derived=key.derived, convergent=key.convergent)
        for number, version in found.versions.items()
    }
    keyset, context = Keyset(key, loaded), b"ctx" if derived else b""
    ours = backup(name, key, found.versions, 0.0)
    bao.adapter.post(f"{url}/restore/{name}-back", json={"backup": ours})
    body = {"context": b64(context)} if derived else {}
    if key.kind.encrypts:
        sealed = ciphers.encrypt(keyset, cipher_pb2.EncryptItem(plaintext=b"x", context=context))
        for each in (name, f"{name}-back"):
            asked = {"ciphertext": sealed.ciphertext, **body}
            opened = bao.adapter.post(f"{url}/decrypt/{each}", json=asked)
            assert opened["data"]["plaintext"] == b64(b"x")
    if key.kind.signs:
        signed = signatures.sign(keyset, b"x", context, 0, Scheme())
        asked = {"input": b64(b"x"), "signature": signed.signature, **body}
        answer = bao.adapter.post(f"{url}/verify/{name}-back", json=asked)
        assert answer["data"]["valid"] is True
    hmac = bao.adapter.post(f"{url}/hmac/{name}-back", json={"input": b64(b"x"), "key_version": 3})
    assert hmac["data"]["hmac"] == signatures.make_hmac(keyset, b"x", 3, "")


@pytest.mark.parametrize("kind", ["aes256-gcm96", "xchacha20-poly1305"])
def test_backups_of_derived_keys_that_were_imported_go_both_ways(bao: Any, kind: str) -> None:
    url, name = "/v1/transit", f"counting-{kind}"
    pem = bao.adapter.get(f"{url}/wrapping_key")["data"]["public_key"]
    public = serialization.load_pem_public_key(pem.encode())
    ciphertext = b64(wrap(public, material(kind), ""))
    body = {"type": kind, "derived": True, "ciphertext": ciphertext, **FREELY}
    bao.adapter.post(f"{url}/keys/{name}/import", json=body)
    found = restored(bao.adapter.get(f"{url}/backup/{name}")["data"]["backup"], 0.0)
    assert found.key.counter_kdf
    back = {"backup": backup(name, found.key, found.versions, 0.0)}
    bao.adapter.post(f"{url}/restore/{name}-back", json=back)
    loaded = Loaded(
        found.key.kind, found.versions[1], derived=True, convergent=False, counter_kdf=True
    )
    keyset = Keyset(found.key, {1: loaded})
    sealed = ciphers.encrypt(keyset, cipher_pb2.EncryptItem(plaintext=b"x", context=b"ctx"))
    for each in (name, f"{name}-back"):
        asked = {"ciphertext": sealed.ciphertext, "context": b64(b"ctx")}
        opened = bao.adapter.post(f"{url}/decrypt/{each}", json=asked)
        assert opened["data"]["plaintext"] == b64(b"x")

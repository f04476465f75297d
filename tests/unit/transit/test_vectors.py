"""Published vectors through transit's own keys: Wycheproof's (tests/vectors), and those of RFC 8032 and RFC 4493."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strongroom.transit.v1 import cipher_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_transit.domain import ciphers, cmacs, signatures
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset
from strongroom_transit.domain.material import Loaded, Version, private_der, public_der
from strongroom_transit.domain.signatures import Scheme

VECTORS = Path(__file__).parents[2] / "vectors" / "wycheproof.json"
FILES: dict[str, list[dict[str, Any]]] = json.loads(VECTORS.read_text())["files"]


@dataclass(frozen=True)
class Case:
    """A test of a file, and what its group says for all."""

    group: dict[str, Any]
    test: dict[str, Any]

    def __getitem__(self, name: str) -> bytes:
        return bytes.fromhex(self.test[name])

    @property
    def valid(self) -> bool:
        return bool(self.test["result"] == "valid")


def cases(*prefixes: str) -> list[Any]:
    """Returns the tests of files; what Wycheproof leaves to the implementation is left out."""
    return [
        pytest.param(name, Case(group, test), id=f"{name}-{test['tcId']}")
        for name, groups in FILES.items()
        if name.startswith(prefixes)
        for group in groups
        for test in group["tests"]
        if test["result"] != "acceptable"
    ]


def keyset(kind: str, **version: Any) -> Keyset:
    key = Key("uuid", kind, latest=1)
    loaded = Loaded(key.kind, Version(0.0, **version), derived=False, convergent=False)
    return Keyset(key, {1: loaded})


def text_of(data: bytes) -> str:
    return f"vault:v1:{base64.b64encode(data).decode()}"


def genuine(check: Any, *arguments: Any) -> bool:
    """Returns whether something passes; what is refused as malformed does not."""
    try:
        return bool(check(*arguments))
    except ServiceError:
        return False


AEADS = {
    "aes_gcm128": "aes128-gcm96",
    "aes_gcm256": "aes256-gcm96",
    "chacha20_poly1305256": "chacha20-poly1305",
    "xchacha20_poly1305256": "xchacha20-poly1305",
}


@pytest.mark.parametrize(("name", "case"), cases("aes_gcm", "chacha20", "xchacha20"))
def test_authenticated_encryption(name: str, case: Case) -> None:
    kind = AEADS.get(f"{name}{case.group['keySize']}")
    if kind is None:
        pytest.skip("no such key: AES-192")
    item = cipher_pb2.DecryptItem(
        ciphertext=text_of(case["iv"] + case["ct"] + case["tag"]), associated_data=case["aad"]
    )
    keys = keyset(kind, secret=case["key"])
    if case.valid:
        assert ciphers.decrypt(keys, item) == case["msg"]
    else:
        with pytest.raises(ServiceError):
            ciphers.decrypt(keys, item)


@pytest.mark.parametrize(("name", "case"), cases("rsa_oaep"))
def test_encryption_to_rsa_keys(name: str, case: Case) -> None:
    if case.test["label"]:
        pytest.skip("no labels")
    keys = keyset("rsa-2048", secret=bytes.fromhex(case.group["privateKeyPkcs8"]))
    item = cipher_pb2.DecryptItem(ciphertext=text_of(case["ct"]))
    if case.valid:
        assert ciphers.decrypt(keys, item) == case["msg"]
    else:
        with pytest.raises(ServiceError):
            ciphers.decrypt(keys, item)


HASHES = {"sha256": "sha2-256", "sha384": "sha2-384", "sha512": "sha2-512", "sha3_256": "sha3-256"}


@pytest.mark.parametrize(("name", "case"), cases("hmac"))
def test_hmacs(name: str, case: Case) -> None:
    algorithm = HASHES[name.removeprefix("hmac_")]
    if 8 * len(case["tag"]) != {"6": 256, "4": 384, "2": 512}[algorithm[-1]]:
        pytest.skip("no shortened HMACs")
    keys = keyset("hmac", secret=case["key"], hmac_key=case["key"])
    arguments = keys, case["msg"], text_of(case["tag"]), algorithm
    assert genuine(signatures.verify_hmac, *arguments) is case.valid


@pytest.mark.parametrize(("name", "case"), cases("aes_cmac"))
def test_cmacs(name: str, case: Case) -> None:
    if len(case["key"]) not in (16, 24, 32):
        pytest.skip("a key of that length cannot be kept")
    keys = keyset(f"aes{8 * len(case['key'])}-cmac", secret=case["key"])
    assert genuine(cmacs.verify, keys, case["msg"], text_of(case["tag"]), 16) is case.valid


CURVES = {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384", "secp521r1": "ecdsa-p521"}


@pytest.mark.parametrize(("name", "case"), cases("ecdsa"))
def test_signatures_with_curves(name: str, case: Case) -> None:
    _, curve, algorithm, *form = name.split("_")
    scheme = Scheme(HASHES[algorithm], marshaling="jws" if form else "asn1")
    text = text_of(case["sig"])
    if form:
        encoded = base64.urlsafe_b64encode(case["sig"]).rstrip(b"=").decode()
        text = f"vault:v1:{encoded}"
    keys = keyset(CURVES[curve], public=bytes.fromhex(case.group["publicKeyDer"]))
    assert genuine(signatures.verify, keys, case["msg"], text, b"", scheme) is case.valid


@pytest.mark.parametrize(("name", "case"), cases("rsa_pss", "rsa_signature"))
def test_signatures_with_rsa_keys(name: str, case: Case) -> None:
    parts = name.split("_")
    if parts[1] == "pss":
        scheme = Scheme(HASHES[parts[3]], signature="pss", salt=parts[-1])
    else:
        scheme = Scheme(HASHES[parts[3]], signature="pkcs1v15")
    keys = keyset(f"rsa-{parts[2]}", public=bytes.fromhex(case.group["publicKeyDer"]))
    arguments = keys, case["msg"], text_of(case["sig"]), b"", scheme
    assert genuine(signatures.verify, *arguments) is case.valid


@pytest.mark.parametrize(("name", "case"), cases("ed25519", "mldsa"))
def test_signatures_without_a_hash(name: str, case: Case) -> None:
    if case.test.get("ctx"):
        pytest.skip("no contexts of FIPS 204")
    kind = "ed25519" if name == "ed25519" else f"ml-dsa-{name.split('_')[1]}"
    der = case.group.get("publicKeyDer")
    if der is None:
        pytest.skip("a key that has no encoding")
    keys = keyset(kind, public=bytes.fromhex(der))
    arguments = keys, case["msg"], text_of(case["sig"]), b"", Scheme()
    try:
        assert genuine(signatures.verify, *arguments) is case.valid
    except ValueError:
        assert not case.valid  # a public key that cannot be loaded is refused when it is imported


# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC8032)
def test_signatures_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert private.public_key().public_bytes_raw().hex() == public
    keys = keyset("ed25519", secret=private_der(private), public=public_der(private.public_key()))
    made = signatures.sign(keys, bytes.fromhex(message), b"", 0, Scheme())
    assert made.signature == text_of(bytes.fromhex(signature))


# RFC 4493, section 4: message and CMAC under one key.
RFC4493 = [
    ("", "bb1d6929e95937287fa37d129b756746"),
    ("6bc1bee22e409f96e93d7e117393172a", "070a16b46b4d4144f79bdd9dd04a287c"),
    (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
        "dfa66747de9ae63030ca32611497c827",
    ),
]


@pytest.mark.parametrize(("message", "mac"), RFC4493)
def test_cmacs_of_rfc_4493(message: str, mac: str) -> None:
    keys = keyset("aes128-cmac", secret=bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    assert cmacs.make(keys, bytes.fromhex(message), 0, 16) == text_of(bytes.fromhex(mac))

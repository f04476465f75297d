"""Published vectors for the primitive, and frozen ones for what stands in etcd: it must open for ever."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing
from strongroom_runtime.storage import Plain

VECTORS = Path(__file__).parents[3] / "vectors" / "rfc5297.json"
RFC5297: list[dict[str, Any]] = json.loads(VECTORS.read_text())["vectors"]


@pytest.mark.parametrize("vector", RFC5297, ids=lambda v: v["name"])
def test_names_are_encrypted_as_rfc_5297_says(vector: dict[str, Any]) -> None:
    cipher = AESSIV(bytes.fromhex(vector["key"]))
    associated = [bytes.fromhex(text) for text in vector["associated_data"]]
    plaintext, output = bytes.fromhex(vector["plaintext"]), bytes.fromhex(vector["output"])
    assert cipher.encrypt(plaintext, associated) == output
    assert cipher.decrypt(output, associated) == plaintext
    with pytest.raises(InvalidTag):
        cipher.decrypt(output, [b"another service", *associated[1:]])


def test_what_an_earlier_version_stored_is_found_and_opens() -> None:
    ring = KeyRing({1: bytes(range(32)), 2: bytes(range(32, 64))}, bytes(range(64)))
    barrier = BarrierCodec("kv", KeyHolder(ring))
    key = b"kv/m/~LNsbIlU6RlUd3oUFeh-G3jJ4MNkBqy4"
    sealed = bytes.fromhex(
        "01000000018d585b97a9b79197fca9257cc256b16b70ca116b0972f587d8ab1e71a08f771e1cca0a"
    )
    assert barrier.encode_path((Plain("m"), "payroll")) == key
    assert barrier.decode_path(key) == ("m", "payroll")
    assert barrier.open(key, sealed) == b"hunter2"

"""Backups: all of a key as base64 of JSON, in the form of Vault and OpenBao, so that keys go from each to each.

The form is that of Go's encoding of their key policies: byte strings in base64, numbers of RSA and EC keys as JSON
numbers, versions before min_decryption_version in a list beside the others. Types that they do not have are named by
text.
"""

import base64
import datetime
import json
import uuid
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from strongroom_runtime.errors import ServiceError, invalid
from strongroom_runtime.timestamps import rfc3339
from strongroom_runtime.tools import base64_bytes
from strongroom_transit.domain.keys import Key, check_new
from strongroom_transit.domain.kinds import TYPES, Family, KeyType
from strongroom_transit.domain.material import (
    CURVES,
    PRIVATE_ML_DSA,
    Loaded,
    Version,
    private_der,
    public_der,
)

MAX_BYTES = 24 << 20
MAX_VERSIONS = 20_000
_NUMBERS = {
    0: "aes256-gcm96",
    1: "ecdsa-p256",
    2: "ed25519",
    3: "rsa-2048",
    4: "rsa-4096",
    5: "chacha20-poly1305",
    6: "ecdsa-p384",
    7: "ecdsa-p521",
    8: "aes128-gcm96",
    9: "rsa-3072",
    10: "hmac",
    11: "xchacha20-poly1305",
}
_TYPES = {name: number for number, name in _NUMBERS.items()}
_COUNTER, _HKDF, _CONVERGENT = 0, 1, 3
_NEVER = "0001-01-01T00:00:00Z"


def backup(name: str, key: Key, versions: Mapping[int, Version], now: float) -> str:
    """Returns all of a key.

    Args:
        name: of the key.
        key: its settings.
        versions: all that there are.
        now: the time.

    Raises:
        ServiceError: INVALID where the key may not be backed up.
    """
    if not key.exportable:
        raise invalid("exporting is disallowed on the policy")
    if not key.backup_allowed:
        raise invalid("plaintext backup is disallowed on the policy")
    entries = {number: _entry(key, version) for number, version in versions.items()}
    first = key.min_available
    archived = [entries.get(number, {}) for number in range(first, key.latest + 1)]
    policy = {
        "name": name,
        "keys": {str(n): entry for n, entry in entries.items() if n >= key.min_decryption},
        "derived": key.derived,
        "kdf": _HKDF if key.derived and not key.counter_kdf else _COUNTER,
        "convergent_encryption": key.convergent,
        "convergent_version": -1 if key.convergent else 0,
        "exportable": key.exportable,
        "min_decryption_version": key.min_decryption,
        "min_encryption_version": key.min_encryption,
        "latest_version": key.latest,
        "archive_version": key.latest,
        "archive_min_version": first,
        "min_available_version": first,
        "deletion_allowed": key.deletion_allowed,
        "type": _TYPES.get(key.type, key.type),
        "backup_info": {"time": rfc3339(now), "version": key.latest},
        "restore_info": None,
        "allow_plaintext_backup": key.backup_allowed,
        "version_template": "",
        "storage_prefix": "",
        "auto_rotate_period": key.rotate_period * 1_000_000_000,
        "Imported": key.imported,
        "AllowImportedKeyRotation": key.allow_rotation,
        "soft_deleted": key.soft_deleted,
        "key_size": key.key_size,
    }
    document = json.dumps({"policy": policy, "archived_keys": {"keys": archived}})
    return base64.b64encode(document.encode()).decode()


class Restored(msgspec.Struct, frozen=True):
    """What a backup holds: the name of the key, its settings and versions."""

    name: str
    key: Key
    versions: dict[int, Version]

    def __repr__(self) -> str:
        return f"Restored({self.key.type})"


def restored(text: str, now: float) -> Restored:
    """Returns what a backup holds. Numbers of RSA keys are not checked against each other here.

    Args:
        text: as `backup` gives it, or Vault or OpenBao.
        now: from which the period of rotation counts.

    Raises:
        ServiceError: INVALID; it is no backup, or one of a key that cannot be here.
    """
    if len(text) > MAX_BYTES:
        raise invalid(f"backup: may have at most {MAX_BYTES} bytes")
    try:
        document = json.loads(base64_bytes(text))
        policy, archive = document["policy"], (document.get("archived_keys") or {}).get("keys")
        kind = TYPES[_NUMBERS.get(policy["type"], policy["type"])]
        key = _key(kind, policy, now)
        versions = _versions(kind, key, policy, archive or [])
        size = len(versions[key.latest].secret) if kind.family is Family.HMAC else 0
        key = msgspec.structs.replace(key, key_size=size)
        check_new(key)
        name = str(policy["name"])
    except ServiceError:
        raise
    except (Base64Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise invalid("backup: is not one of a key of a type that there is here") from None
    except (UnsupportedAlgorithm, OverflowError):
        raise invalid("backup: has a key that cannot be read") from None
    return Restored(name, key, versions)


def _key(kind: KeyType, policy: Mapping[str, Any], now: float) -> Key:
    counting = policy.get("derived") is True and policy.get("kdf", _HKDF) == _COUNTER
    if policy.get("derived") and policy.get("kdf", _HKDF) != _HKDF and not counting:
        raise invalid("backup: the key derives in a way that is not supported")
    if counting and (kind.family is not Family.AEAD or policy.get("convergent_encryption")):
        raise invalid("backup: a key like this does not derive in counter mode")
    if policy.get("version_template"):
        raise invalid(
            "backup: the key has a form of ciphertexts of its own, which is not supported"
        )
    period = _number(policy, "auto_rotate_period") // 1_000_000_000
    key = Key(
        uuid.uuid4().hex,
        kind.name,
        latest=_number(policy, "latest_version"),
        min_decryption=_number(policy, "min_decryption_version") or 1,
        min_encryption=_number(policy, "min_encryption_version"),
        min_available=_number(policy, "min_available_version"),
        deletion_allowed=policy.get("deletion_allowed") is True,
        derived=policy.get("derived") is True,
        convergent=policy.get("convergent_encryption") is True,
        exportable=policy.get("exportable") is True,
        backup_allowed=policy.get("allow_plaintext_backup") is True,
        rotate_period=period,
        imported=policy.get("Imported") is True,
        allow_rotation=policy.get("AllowImportedKeyRotation") is True,
        soft_deleted=policy.get("soft_deleted") is True,
        counter_kdf=counting,
    )
    if key.rotates_by_itself:
        key = msgspec.structs.replace(key, rotate_at=now + period)
    if key.convergent and policy.get("convergent_version") not in (-1, _CONVERGENT):
        raise invalid("backup: the key encrypts convergently in an old way, which is not supported")
    count = key.latest - key.oldest + 1
    bounds = (key.min_decryption, key.min_encryption or key.latest, key.oldest)
    if not 1 <= count <= MAX_VERSIONS or not all(1 <= bound <= key.latest for bound in bounds):
        raise invalid("backup: its versions contradict each other")
    return key


def _versions(
    kind: KeyType, key: Key, policy: Mapping[str, Any], archive: list[Any]
) -> dict[int, Version]:
    found: dict[int, Version] = {}
    for number in range(key.oldest, key.latest + 1):
        entry = policy["keys"].get(str(number))
        if entry is None and 0 <= number - key.min_available < len(archive):
            entry = archive[number - key.min_available]
        if not entry:
            raise invalid("backup: a version of the key is missing")
        if key.convergent and entry.get("convergent_version") not in (None, 0, _CONVERGENT):
            raise invalid("backup: a version encrypts convergently in an old way")
        found[number] = _version(kind, entry)
    return found


def _entry(key: Key, version: Version) -> dict[str, Any]:
    kind, loaded = key.kind, Loaded(key.kind, version, derived=False, convergent=False)
    entry: dict[str, Any] = {
        "key": None,
        "hmac_key": _base64(version.hmac_key),
        "time": rfc3339(version.created),
        "ec_x": None,
        "ec_y": None,
        "ec_d": None,
        "rsa_key": None,
        "rsa_public_key": None,
        "public_key": "",
        "convergent_version": _CONVERGENT if key.convergent else 0,
        "creation_time": int(version.created),
        "certificate_chain": [_base64(each) for each in version.certificates] or None,
    }
    if kind.symmetric:
        entry["key"] = _base64(version.secret)
    elif kind.family is Family.RSA:
        entry |= _rsa_entry(loaded)
    elif kind.family is Family.ECDSA:
        entry |= _ec_entry(loaded)
    else:
        raw = loaded.public.public_bytes_raw()
        entry["public_key"] = _base64(raw)
        if version.secret:
            secret = loaded.private.private_bytes_raw()
            entry["key"] = _base64(secret + raw if kind.family is Family.ED25519 else secret)
    return entry


def _rsa_entry(loaded: Loaded) -> dict[str, Any]:
    public = loaded.public.public_numbers()
    if not loaded.version.secret:
        return {"rsa_public_key": {"N": public.n, "E": public.e}}
    private = loaded.private.private_numbers()
    return {
        "rsa_key": {
            "N": public.n,
            "E": public.e,
            "D": private.d,
            "Primes": [private.p, private.q],
            "Precomputed": {
                "Dp": private.dmp1,
                "Dq": private.dmq1,
                "Qinv": private.iqmp,
                "CRTValues": [],
            },
        }
    }


def _ec_entry(loaded: Loaded) -> dict[str, Any]:
    public = loaded.public.public_numbers()
    pem = loaded.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = loaded.version.secret
    return {
        "ec_x": public.x,
        "ec_y": public.y,
        "ec_d": loaded.private.private_numbers().private_value if secret else None,
        "public_key": pem.decode(),
    }


def _version(kind: KeyType, entry: Mapping[str, Any]) -> Version:
    secret, public = _halves(kind, entry)
    hmac_key = base64.b64decode(entry.get("hmac_key") or "")
    return Version(
        _time(entry),
        secret,
        public,
        secret if kind.family is Family.HMAC else hmac_key,
        tuple(base64.b64decode(each) for each in entry.get("certificate_chain") or ()),
    )


def _halves(kind: KeyType, entry: Mapping[str, Any]) -> tuple[bytes, bytes]:
    raw = base64.b64decode(entry.get("key") or "")
    if kind.symmetric:
        if kind.family is not Family.HMAC and len(raw) != kind.size:
            raise ValueError
        return raw, b""
    if kind.family is Family.RSA:
        return _rsa_halves(kind, entry)
    if kind.family is Family.ECDSA:
        curve = CURVES[kind.size]()
        point = ec.EllipticCurvePublicNumbers(entry["ec_x"], entry["ec_y"], curve)
        if entry.get("ec_d") is None:
            return b"", public_der(point.public_key())
        numbers = ec.EllipticCurvePrivateNumbers(entry["ec_d"], point)
        return private_der(numbers.private_key()), public_der(point.public_key())
    if not raw:
        return b"", public_der(
            ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(entry["public_key"]))
        )
    private: Any
    if kind.family is Family.ED25519:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(raw[:32])
        if raw[32:] != private.public_key().public_bytes_raw():
            raise ValueError
    else:
        private = PRIVATE_ML_DSA[kind.size].from_seed_bytes(raw)
    return private_der(private), public_der(private.public_key())


def _rsa_halves(kind: KeyType, entry: Mapping[str, Any]) -> tuple[bytes, bytes]:
    numbers = entry.get("rsa_key") or entry["rsa_public_key"]
    public = rsa.RSAPublicNumbers(numbers["E"], numbers["N"])
    if numbers["N"].bit_length() != kind.size:
        raise ValueError
    if not entry.get("rsa_key"):
        return b"", public_der(public.public_key())
    p, q = numbers["Primes"]
    private = rsa.RSAPrivateNumbers(
        p,
        q,
        numbers["D"],
        rsa.rsa_crt_dmp1(numbers["D"], p),
        rsa.rsa_crt_dmq1(numbers["D"], q),
        rsa.rsa_crt_iqmp(p, q),
        public,
    )
    half = private.private_key(unsafe_skip_rsa_key_validation=True)
    return private_der(half), public_der(public.public_key())


def _time(entry: Mapping[str, Any]) -> float:
    text = entry.get("time")
    if not isinstance(text, str) or text == _NEVER:
        return float(entry.get("creation_time") or 0)
    return datetime.datetime.fromisoformat(text).timestamp()


def _number(policy: Mapping[str, Any], name: str) -> int:
    value = policy.get(name) or 0
    if not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

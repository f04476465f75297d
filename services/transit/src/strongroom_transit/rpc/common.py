"""What the translations share."""

import asyncio
import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization

from strongroom.transit.v1 import key_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid, not_found
from strongroom_runtime.requests import mount_of
from strongroom_runtime.timestamps import rfc3339
from strongroom_transit.config import Config
from strongroom_transit.domain.ciphers import each
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset
from strongroom_transit.domain.kinds import Family
from strongroom_transit.domain.material import Loaded, Version
from strongroom_transit.domain.transfer import chain_pem
from strongroom_transit.storage import Keys

# Statuses that an answer with a body may have.
_PARTIAL = frozenset(range(200, 600)) - {204, 205, 304}
# From so many items on, what takes long for each is done beside the event loop.
_FEW = 4
_reference = attrgetter("reference")
_NAMES = {
    Family.ECDSA: {256: "P-256", 384: "P-384", 521: "P-521"},
    Family.ED25519: {0: "ed25519"},
}


async def usable(
    keys: Keys,
    name: str,
    versions: Collection[int],
    context: RequestContext,
    what: str = "encryption key",
) -> Keyset:
    """Returns a key that a request works with, and some of its versions.

    Args:
        keys: of all mounts.
        name: of the key.
        versions: see `Keys.keyset`.
        context: of the request.
        what: the key is to the request, for the error.

    Raises:
        ServiceError: INVALID where there is no such key, or it was deleted softly.
    """
    mount = mount_of(context).uuid
    keyset = await keys.keyset(mount, name, versions, linearizable=context.linearizable)
    if keyset is None:
        raise invalid(f"{what} not found")
    keyset.key.check_usable()
    return keyset


async def run(
    keyset: Keyset, items: Sequence[Any], operation: Callable[[Any], list[Any]], config: Config
) -> list[Any]:
    """Returns what an operation makes of each item of a batch: its result, or the error where it failed.

    Args:
        keyset: what it works with.
        items: of the batch.
        operation: on some of them, such as `one_by_one` gives.
        config: says how many items there may be.

    Raises:
        ServiceError: TOO_LARGE.
    """
    if len(items) > config.batch_items:
        raise ServiceError(Kind.TOO_LARGE, f"batch_input: takes at most {config.batch_items} items")
    if not keyset.key.kind.symmetric and len(items) > _FEW:
        return await asyncio.to_thread(operation, items)
    step = config.batch_slice
    if len(items) <= step:
        return operation(items)
    results: list[Any] = []
    for start in range(0, len(items), step):
        results += operation(items[start : start + step])
        await asyncio.sleep(0)
    return results


def one_by_one(operation: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    """Returns what does an operation on each of many items, of which some may be malformed."""

    def checked(item: Any) -> Any:
        if item.malformed:
            raise invalid(item.malformed)
        return operation(item)

    return partial(each, checked)


def outcomes(
    items: Sequence[Any],
    results: Sequence[Any],
    shown: Callable[[Any], dict[str, Any]],
    beside_error: Mapping[str, Any] = MappingProxyType({}),
) -> list[Any]:
    """Returns what became of the items of a batch: the fields of a message for each.

    Protobuf makes messages of them in one step with the response, which costs less than to fill each.

    Args:
        items: as they came.
        results: what `run` gave.
        shown: returns the fields of a result; errors and references are put here.
        beside_error: what Vault has beside an error.
    """
    told = [
        {"error": result.message, **beside_error} if type(result) is ServiceError else shown(result)
        for result in results
    ]
    if any(map(_reference, items)):
        for fields, reference in zip(told, map(_reference, items), strict=True):
            fields["reference"] = reference
    return told


def status_of(results: Sequence[Any], wanted: int, usual: int = 400) -> int:
    """Returns the HTTP status of a batch, 0 for that of success.

    Args:
        results: what became of the items.
        wanted: the status where some of them failed and others did not, or 0.
        usual: where some or all failed and nothing was wanted: 400 for encryption and decryption, that of success for
            everything else, as in Vault.
    """
    failed = len([result for result in results if type(result) is ServiceError])
    if not failed:
        return 0
    if not wanted:
        return usual
    return wanted if failed < len(results) else 400


def check_partial(wanted: int) -> None:
    """Raises for what is no HTTP status.

    Raises:
        ServiceError: INVALID.
    """
    if wanted and wanted not in _PARTIAL:
        raise invalid(
            "partial_failure_response_code: takes an HTTP status from 200 on, of answers with a body"
        )


def found_key(key: Key | None) -> Key:
    """Returns a key that a request reads.

    Raises:
        ServiceError: NOT_FOUND where there is none.
    """
    if key is None:
        raise not_found()
    return key


def named_key(key: Key | None, field: str = "name") -> Key:
    """Returns a key that a request does something with.

    Raises:
        ServiceError: INVALID where there is none; it names the field.
    """
    if key is None:
        raise invalid(f"{field}: there is no key of that name")
    return key


def key_message(
    name: str, key: Key, versions: Mapping[int, Version], context: bytes = b""
) -> pb.KeyInfo:
    """Returns a key as it may be shown.

    Args:
        name: of the key.
        key: its settings.
        versions: those to show.
        context: for derived ed25519 keys, whose public keys are of a context.
    """
    kind = key.kind
    message = pb.KeyInfo(
        name=name,
        type=key.type,
        keys=_versions_json(key, versions, context),
        latest_version=key.latest,
        min_available_version=key.min_available,
        min_decryption_version=key.min_decryption,
        min_encryption_version=key.min_encryption,
        deletion_allowed=key.deletion_allowed,
        derived=key.derived,
        exportable=key.exportable,
        allow_plaintext_backup=key.backup_allowed,
        supports_encryption=kind.encrypts,
        supports_decryption=kind.encrypts,
        supports_derivation=kind.derives,
        supports_signing=kind.signs,
        auto_rotate_period=key.rotate_period,
        imported_key=key.imported,
        soft_deleted=key.soft_deleted,
    )
    if key.derived:
        message.kdf = "hmac-sha256-counter" if key.counter_kdf else "hkdf_sha256"
        if key.counter_kdf:
            message.kdf_mode = message.kdf
        message.convergent_encryption = key.convergent
        if key.convergent:
            message.convergent_encryption_version = -1
    if key.imported:
        message.imported_key_allow_rotation = key.allow_rotation
    if key.key_size:
        message.key_size = key.key_size
    return message


def public_text(key: Key, version: Version, context: bytes = b"") -> str:
    """Returns the public half as Vault shows it: base64 of the raw key for ed25519 and ML-DSA, PEM for the others."""
    family = key.kind.family
    if family is Family.ED25519 and key.derived:
        if not context:
            return ""
        loaded = Loaded(key.kind, version, derived=True, convergent=False)
        return base64.b64encode(loaded.signer(context).public_key().public_bytes_raw()).decode()
    public: Any = serialization.load_der_public_key(version.public)
    if family in (Family.ED25519, Family.ML_DSA):
        return base64.b64encode(public.public_bytes_raw()).decode()
    pem: bytes = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


def _versions_json(key: Key, versions: Mapping[int, Version], context: bytes) -> bytes:
    shown = {number: v for number, v in versions.items() if number >= key.min_decryption}
    if key.kind.symmetric:
        return msgspec.json.encode({str(n): int(v.created) for n, v in shown.items()})
    return msgspec.json.encode({str(n): _public(key, v, context) for n, v in shown.items()})


def _public(key: Key, version: Version, context: bytes) -> dict[str, str]:
    kind = key.kind
    return {
        "certificate_chain": chain_pem(version),
        "creation_time": rfc3339(version.created),
        "name": _NAMES.get(kind.family, {}).get(kind.size, kind.name),
        "public_key": public_text(key, version, context),
    }

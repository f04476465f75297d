"""Secret documents: JSON objects, kept and returned byte for byte."""

import msgspec

from strongroom_runtime.documents import refuse_repeated_keys
from strongroom_runtime.errors import Kind, ServiceError, invalid

MAX_BYTES = 1 << 20  # of one document; etcd takes 1.5 MiB for a whole transaction

_Object = dict[str, msgspec.Raw]


def check(document: bytes, field: str = "data") -> None:
    """Raises unless a document is a JSON object of a size that can be stored, in which no key comes twice.

    Args:
        document: as it came.
        field: what errors name.

    Raises:
        ServiceError: INVALID, or TOO_LARGE with the limit.
    """
    if len(document) > MAX_BYTES:
        raise ServiceError(
            Kind.TOO_LARGE, f"{field}: a document may have at most {MAX_BYTES} bytes"
        )
    _decode(document, field)
    refuse_repeated_keys(document, field)


def merge(document: bytes, patch: bytes, field: str = "data") -> bytes:
    """Returns a document with a merge patch applied (RFC 7396).

    Values that the patch does not touch keep their bytes, so that numbers of any size survive.

    Raises:
        ServiceError: INVALID where the patch is not an object or has a key twice, TOO_LARGE where the result is.
    """
    refuse_repeated_keys(patch, field)
    merged = _merge(_decode(document, field), _decode(patch, field))
    result = msgspec.json.encode(merged)
    if len(result) > MAX_BYTES:
        raise ServiceError(
            Kind.TOO_LARGE, f"{field}: a document may have at most {MAX_BYTES} bytes"
        )
    return result


def _merge(target: _Object, patch: _Object) -> _Object:
    for key, value in patch.items():
        if bytes(value) == b"null":
            target.pop(key, None)
        elif bytes(value).startswith(b"{"):
            known = bytes(target.get(key, b""))
            base = msgspec.json.decode(known, type=_Object) if known.startswith(b"{") else {}
            changes = msgspec.json.decode(value, type=_Object)
            target[key] = msgspec.Raw(msgspec.json.encode(_merge(base, changes)))
        else:
            target[key] = value
    return target


def _decode(document: bytes, field: str) -> _Object:
    try:
        return msgspec.json.decode(document, type=_Object)
    except (msgspec.DecodeError, RecursionError):
        raise invalid(f"{field}: must be a JSON object") from None


def subkeys(document: bytes, depth: int) -> bytes:
    """Returns a document with null in place of every value.

    Args:
        document: a JSON object.
        depth: how many levels of keys to show; 0 means all.
    """
    return msgspec.json.encode(_shape(msgspec.json.decode(document, type=_Object), depth, 1))


def _shape(value: _Object, depth: int, level: int) -> dict[str, object]:
    shape: dict[str, object] = {}
    for key, raw in value.items():
        inner = bytes(raw)
        deeper = inner.startswith(b"{") and inner != b"{}" and (not depth or level < depth)
        shape[key] = (
            _shape(msgspec.json.decode(inner, type=_Object), depth, level + 1) if deeper else None
        )
    return shape

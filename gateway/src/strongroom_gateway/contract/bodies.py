"""Bodies of requests: their members, each as it came, and what bounds them."""

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid

MAX_BODY = 32 << 20  # of what is computed with
MAX_KEPT_BODY = 4 << 20  # of everything else: what is kept may have less than half of that
MAX_FORM = 1 << 20
MAX_DEPTH = 300
MAX_STRINGS = 1_000_000
MAX_CONTAINERS = 1_000_000  # lists and objects: empty ones take twenty times their text
MAX_COMMAS = 2_000_000  # between values, and in texts: numbers take five times their text

# A text, or what begins as one and does not end: passed over once, whatever is in it.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_FLAT_PASSES = 3
_STEPS = {0x5B: 1, 0x7B: 1, 0x5D: -1, 0x7D: -1}

_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.decode


def parse_body(body: bytes) -> dict[str, msgspec.Raw]:
    """Returns the members of a JSON object, each as it came. An empty body is an empty object.

    Bounds are checked before anything is parsed that would cost memory or stack.

    Raises:
        ServiceError: INVALID, or TOO_LARGE.
    """
    if not body or body == b"null":  # what some clients send for nothing
        return {}
    _check_bounds(body)
    try:
        if not body.isascii():
            body.decode()  # members that nobody reads are not looked into below
        return _raw_object(body)
    except msgspec.ValidationError:
        raise invalid("the body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise invalid("failed to parse JSON input: the body is malformed") from None


def parse_value(document: bytes, name: str) -> Any:
    """Returns the value of a JSON document in a field of a message, within the bounds of bodies.

    Args:
        document: as it came.
        name: of the field.

    Raises:
        ServiceError: INVALID, or TOO_LARGE.
    """
    _check_bounds(document)
    try:
        return _value(document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise invalid(f"{name}: must be JSON") from None


def form_as_json(body: bytes) -> bytes:
    """Returns a form as the JSON object that says the same: texts, and lists of texts for names that come again.

    Raises:
        ServiceError: INVALID, or TOO_LARGE.
    """
    if len(body) > MAX_FORM:
        raise ServiceError(Kind.TOO_LARGE, f"a form may have at most {MAX_FORM} bytes")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True)
    except ValueError:
        raise invalid("the body is no well-formed form") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return msgspec.json.encode(
        {name: each[0] if len(each) == 1 else each for name, each in values.items()}
    )


def parameters_of(members: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """Returns the members of a body as values, for policies and audit entries.

    Raises:
        ServiceError: INVALID.
    """
    try:
        return {name: _value(raw) for name, raw in members.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise invalid("failed to parse JSON input: the body is malformed") from None


def _check_bounds(body: bytes) -> None:
    if len(body) > MAX_BODY:
        raise ServiceError(Kind.TOO_LARGE, "http: request body too large")
    opened = body.count(b"{") + body.count(b"[")
    if opened > MAX_CONTAINERS:
        raise invalid(f"JSON has more than {MAX_CONTAINERS} lists and objects")
    if body.count(b'"') > 2 * MAX_STRINGS:
        raise invalid(f"JSON has more than {MAX_STRINGS} texts")
    if body.count(b",") > MAX_COMMAS:
        raise invalid(f"JSON has more than {MAX_COMMAS} values")
    if opened > MAX_DEPTH and not _is_flat(body) and _depth(body) > MAX_DEPTH:
        raise invalid(f"JSON is nested deeper than {MAX_DEPTH}")


def _is_flat(body: bytes) -> bool:
    """Returns whether brackets are certainly nested no deeper than in large batches: that is found out sooner."""
    if b"\\" in body:
        return False  # quotes may be parts of texts
    brackets = b"".join(body.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    for _ in range(_FLAT_PASSES):  # each takes one or two levels away
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    return not brackets


def _depth(body: bytes) -> int:
    """Returns how deep brackets are nested, outside of texts."""
    brackets = _TEXT.sub(b"", body).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets), initial=0))

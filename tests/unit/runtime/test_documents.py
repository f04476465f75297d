"""Documents that are kept as they came."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime.documents import refuse_repeated_keys
from strongroom_runtime.errors import Kind, ServiceError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=15,
)


@given(_JSON, st.booleans())
def test_documents_without_repeated_keys_pass(value: Any, ascii_only: bool) -> None:
    refuse_repeated_keys(json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace"), "x")


def test_numbers_of_any_size_pass() -> None:
    refuse_repeated_keys(b'{"n":' + b"9" * 100_000 + b"}", "data")


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"\\u0061":3}',
        b'{"a":{"b":[{"c":1,"c":2}]}}',
        b'[{"":0,"":0}]',
    ],
)
def test_repeated_keys_are_refused_however_deep_and_spelt(document: bytes) -> None:
    with pytest.raises(ServiceError, match="data: an object has a key twice") as caught:
        refuse_repeated_keys(document, "data")
    assert caught.value.kind is Kind.INVALID


class Pairs(list[tuple[str, Any]]):
    """An object as it is written: its members in order, whatever their names."""


_NAMES = st.sampled_from(["a", "b", ":", "a:b", 'q"', "\u00e4"])
_WRITTEN = st.recursive(
    st.integers() | _NAMES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.tuples(_NAMES, inner), max_size=3).map(lambda pairs: Pairs(pairs))
    ),
    max_leaves=12,
)


def _text(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{_text(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(_repeats(each) for _, each in value)
    return isinstance(value, list) and any(map(_repeats, value))


@given(_WRITTEN)
def test_exactly_those_with_repeated_keys_are_refused(value: Any) -> None:
    document = _text(value).encode()
    if _repeats(value):
        with pytest.raises(ServiceError):
            refuse_repeated_keys(document, "data")
    else:
        refuse_repeated_keys(document, "data")

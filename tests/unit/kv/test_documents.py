"""Secret documents and merge patches."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_kv.domain.documents import MAX_BYTES, check, merge
from strongroom_runtime.errors import Kind, ServiceError

value = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text('ab"\\ü', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=12,
)
document = st.dictionaries(st.text("ab", max_size=2), value)


def naive(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, each in patch.items():
        if each is None:
            result.pop(key, None)
        else:
            result[key] = naive(result.get(key), each)
    return result


@given(document, document, st.sampled_from([None, 1]))
def test_merges_as_the_standard_says(target: Any, patch: Any, indent: int | None) -> None:
    merged = merge(json.dumps(target).encode(), json.dumps(patch, indent=indent).encode())
    assert json.loads(merged) == naive(target, patch)


@pytest.mark.parametrize("write", [check, lambda document: merge(b"{}", document)])
def test_a_key_that_comes_twice_is_refused(write: Any) -> None:
    with pytest.raises(ServiceError, match="data: an object has a key twice"):
        write(b'{"a":{"b":1,"b":2}}')


def test_what_is_not_touched_keeps_its_bytes() -> None:
    big = b'{"a":18446744073709551617,"b":1.10,"c":{"d":1e400,"e":1}}'
    merged = merge(big, b'{"c":{"e":null,"f":2}}')
    assert merged == b'{"a":18446744073709551617,"b":1.10,"c":{"d":1e400,"f":2}}'


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"1", b"null", b'{"a":}', b"{", b'{"a":1} x', b"\xff"]
)
def test_only_objects_are_documents(text: bytes) -> None:
    with pytest.raises(ServiceError, match="data: must be a JSON object") as caught:
        check(text)
    assert caught.value.kind is Kind.INVALID


def test_a_document_of_the_greatest_size_passes_and_one_above_does_not() -> None:
    fits = b'{"a":"' + b"x" * (MAX_BYTES - 8) + b'"}'
    check(fits)
    with pytest.raises(ServiceError, match=str(MAX_BYTES)) as caught:
        check(fits + b" ")
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(ServiceError, match=str(MAX_BYTES)):
        merge(fits, b'{"b":1}')

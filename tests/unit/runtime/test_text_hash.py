"""The hash of audit entries is HMAC-SHA256, for salts of every length."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime.text_hash import TextHash


@given(st.binary(max_size=200), st.text(max_size=200))
def test_it_is_hmac(salt: bytes, text: str) -> None:
    expected = hmac.digest(salt, text.encode(errors="replace"), "sha256").hex()
    assert TextHash(salt).of(text) == f"hmac-sha256:{expected}"

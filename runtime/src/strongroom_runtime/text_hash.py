"""Texts as they stand in audit entries: made by the gateway, and by the audit service for who looks one up."""

import hashlib

_BLOCK = 64  # bytes, of SHA-256


class TextHash:
    """HMAC-SHA256 of texts under one salt.

    The two halves of HMAC are kept with the key already in (RFC 2104, section 4): entries hash many short texts.

    Args:
        salt: the key.
    """

    def __init__(self, salt: bytes) -> None:
        block = salt if len(salt) <= _BLOCK else hashlib.sha256(salt).digest()
        block = block.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __repr__(self) -> str:
        return "TextHash(…)"

    def of(self, text: str) -> str:
        """Returns `hmac-sha256:` and the HMAC in hexadecimal."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode(errors="replace"))
        outer.update(inner.digest())
        return "hmac-sha256:" + outer.hexdigest()

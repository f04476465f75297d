"""Texts that open something: tokens, and how they are compared."""

import hmac
import re
import secrets
import string

TOKEN_PREFIX = "srs."  # noqa: S105 (how tokens begin, not one)
_ACCESSOR, _ACCESSOR_LENGTH = string.ascii_letters + string.digits, 24
_TOKEN = re.compile(r"srs\.[A-Za-z0-9_-]{16,128}")


def new_token() -> str:
    """Returns a new token: the prefix and 24 random bytes in base64url."""
    return TOKEN_PREFIX + secrets.token_urlsafe(24)


def new_accessor() -> str:
    """Returns a new accessor: a handle that cannot be used as a token.

    It is of letters and digits, as Vault's are: command lines take what begins with a hyphen for an option.
    """
    return random_letters(_ACCESSOR, _ACCESSOR_LENGTH)


def random_letters(charset: str, length: int) -> str:
    """Returns a text of so many letters, each text of them as likely as any other.

    One number is drawn for all: to ask the operating system for each letter takes ten times as long.
    """
    number, letters = secrets.randbelow(len(charset) ** length), []
    for _ in range(length):
        number, letter = divmod(number, len(charset))
        letters.append(charset[letter])
    return "".join(letters)


def looks_like_token(text: str) -> bool:
    """Returns whether a text has the form of a token, so that anything else costs no look-up."""
    return _TOKEN.fullmatch(text) is not None


def equal(one: str | bytes, other: str | bytes) -> bool:
    """Compares in a time that does not tell where they differ."""
    first = one.encode() if isinstance(one, str) else one
    second = other.encode() if isinstance(other, str) else other
    return hmac.compare_digest(first, second)

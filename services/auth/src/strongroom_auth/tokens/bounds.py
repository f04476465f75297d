"""How much clients may give of what tokens carry.

All of it is in every audit entry of a token, and in memory wherever the token is used. What was stored before there
were bounds stays as it is: only what a request gives is looked at. Metadata has the bounds that Vault has for that of
entities.
"""

import re
from collections.abc import Collection, Mapping

from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import check_length

MAX_POLICIES, MAX_POLICY_CHARACTERS = 256, 512
MAX_RANGES = 1_000
MAX_META_KEYS, MAX_META_KEY_BYTES, MAX_META_VALUE_BYTES = 64, 128, 512
MAX_DISPLAY_NAME_BYTES = 512
MAX_ID_CHARACTERS = 512
MAX_NAME_CHARACTERS = 512  # of roles and users, and of what is put behind the path of a token
MAX_ROLE_ID_CHARACTERS = 512
MAX_SECRET_ID_CHARACTERS = 4_096
_NAME = re.compile(r"\w([\w.-]*\w)?", re.ASCII)  # as in Vault
NAMES = "takes letters, digits, _, - and ., the last two not at its ends"


def check_policies(field: str, names: Collection[str]) -> None:
    """Raises for more names of policies than a token or a role may have, and for one longer than any policy's.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if len(names) > MAX_POLICIES:
        raise invalid(f"{field}: at most {MAX_POLICIES} may be given")
    if any(len(name) > MAX_POLICY_CHARACTERS for name in names):
        raise invalid(f"{field}: a name may have at most {MAX_POLICY_CHARACTERS} characters")


def check_ranges(field: str, cidrs: Collection[str]) -> None:
    """Raises for more address ranges than are looked through with each request, and for one with a zone.

    Where a client comes from is compared without its zone, which is one of this machine's: a range that named one
    would be wider than it looks.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if len(cidrs) > MAX_RANGES:
        raise invalid(f"{field}: at most {MAX_RANGES} address ranges may be given")
    if any("%" in cidr for cidr in cidrs):
        raise invalid(f"{field}: an address range has no zone, such as %eth0")


def check_meta(field: str, meta: Mapping[str, str]) -> None:
    """Raises for metadata with too many keys, or with too long ones or values.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if len(meta) > MAX_META_KEYS:
        raise invalid(f"{field}: at most {MAX_META_KEYS} keys may be given")
    for key, value in meta.items():
        if len(key.encode()) > MAX_META_KEY_BYTES:
            raise invalid(f"{field}: a key may have at most {MAX_META_KEY_BYTES} bytes")
        if len(value.encode()) > MAX_META_VALUE_BYTES:
            raise invalid(f"{field}: a value may have at most {MAX_META_VALUE_BYTES} bytes")


def is_name(text: str) -> bool:
    """Returns whether a text has the characters of a name."""
    return _NAME.fullmatch(text) is not None


def check_new_name(field: str, name: str) -> None:
    """Raises for a name that no role or user is given any more. Those that have one already keep it.

    Raises:
        ServiceError: INVALID; it names the field and what it takes.
    """
    if not name:
        raise invalid(f"{field}: must not be empty")
    if not is_name(name):
        raise invalid(f"{field}: {NAMES}")
    check_length(field, name, MAX_NAME_CHARACTERS)


def check_names(display_name: str, token_id: str) -> None:
    """Raises for a display name, or a text of a token, that is too long.

    Raises:
        ServiceError: INVALID; it names the field and the bound.
    """
    if len(display_name.encode()) > MAX_DISPLAY_NAME_BYTES:
        raise invalid(f"display_name: may have at most {MAX_DISPLAY_NAME_BYTES} bytes")
    check_length("id", token_id, MAX_ID_CHARACTERS)

"""Where policies are kept."""

import base64
import binascii

from strongroom_auth.policies.builtin import DEFAULT
from strongroom_runtime.errors import invalid
from strongroom_runtime.policy import PolicyError, parse_policy
from strongroom_runtime.storage import Path, Plain, ReadSet, Store, Transaction

MAX_NAME = 512

_POLICY = Plain("policy")


class PolicyStore:
    """All policies. Names are cleaned before anything looks at them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def text(self, name: str, reads: ReadSet | None = None) -> str | None:
        """Returns a policy's text, the empty one for root, or None where it does not exist."""
        name = clean(name)
        if name == "root":
            return ""
        path = _path(name)
        entry = await (reads.get(path) if reads is not None else self._store.get(path))
        if entry is not None:
            return entry.value.decode()
        return DEFAULT if name == "default" else None

    async def names(self) -> list[str]:
        """Returns the names of all policies, sorted."""
        stored = {name for name, _ in await self._store.children((_POLICY,))}
        return sorted(stored | {"default", "root"})

    async def write(self, name: str, text: str) -> None:
        """Writes a policy.

        Raises:
            ServiceError: INVALID; it says where the text does not parse.
        """
        name = clean(name)
        if name == "root":
            raise invalid('cannot update "root" policy')
        if not 0 < len(name) <= MAX_NAME:
            raise invalid(f"name: must have 1 to {MAX_NAME} characters")
        text = _decoded(text)
        if not text.strip():
            raise invalid("'policy' parameter not supplied or empty")
        try:
            parse_policy(name, text)
        except PolicyError as error:
            raise invalid(f"failed to parse policy: {error}") from error
        await self._store.commit(Transaction(puts={_path(name): text.encode()}))

    async def delete(self, name: str) -> None:
        """Removes a policy.

        Raises:
            ServiceError: INVALID for those that are always there.
        """
        name = clean(name)
        if name == "root":
            raise invalid('cannot delete "root" policy')
        if name == "default":
            raise invalid("cannot delete default policy")
        await self._store.commit(Transaction(deletes=[_path(name)]))


def clean(name: str) -> str:
    """Returns a policy's name in lower case, trimmed."""
    return name.strip().lower()


def _decoded(text: str) -> str:
    """Returns a text that may have come in base64, in one line or several, which no policy looks like."""
    try:
        return base64.b64decode("".join(text.splitlines()).strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return text


def _path(name: str) -> Path:
    return (_POLICY, name)

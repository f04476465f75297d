"""Where password policies are kept.

password/<name>             the text of a policy
"""

from strongroom_dbcreds.domain import passwords
from strongroom_runtime.errors import invalid
from strongroom_runtime.storage import Path, Plain, Store, Transaction

_PASSWORD = Plain("password")


class PasswordPolicies:
    """The password policies of the platform."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, name: str) -> str | None:
        """Returns the text of a policy."""
        entry = await self._store.get(_path(name))
        return entry.value.decode() if entry is not None else None

    async def names(self) -> list[str]:
        """Returns the names, sorted."""
        return [name for name, _ in await self._store.children((_PASSWORD,))]

    async def write(self, name: str, text: str) -> None:
        """Writes a policy.

        Raises:
            ServiceError: INVALID where it is none.
        """
        passwords.parse(text)
        await self._store.commit(Transaction(puts={_path(name): text.encode()}))

    async def delete(self, name: str) -> None:
        """Removes a policy."""
        await self._store.commit(Transaction(deletes=[_path(name)]))

    async def generate(self, name: str) -> str:
        """Returns a new password by a policy; empty for the usual one.

        Raises:
            ServiceError: INVALID where it does not exist.
        """
        if not name:
            return passwords.generate(passwords.USUAL)
        text = await self.get(name)
        if text is None:
            raise invalid("password_policy: does not exist")
        return passwords.generate(passwords.parse(text))


def _path(name: str) -> Path:
    return (_PASSWORD, name)

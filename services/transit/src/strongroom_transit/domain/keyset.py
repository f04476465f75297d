"""A key as it stood when a request began: what all operations are functions of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from strongroom_runtime.errors import invalid
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.material import Loaded


@dataclass(frozen=True, slots=True)
class Keyset:
    """A key and those of its versions that a request needs.

    Args:
        key: its settings.
        versions: ready for use.
    """

    key: Key
    versions: Mapping[int, Loaded]

    def version(self, number: int) -> Loaded:
        """Returns a version.

        Raises:
            ServiceError: INVALID where it is gone.
        """
        found = self.versions.get(number)
        if found is None:
            raise invalid("no such key version")
        return found


PREFIX = "vault:v"


def split(text: str, what: str) -> tuple[int, str]:
    """Returns the version and the rest of `vault:v<version>:<rest>`.

    Args:
        text: a ciphertext, signature or HMAC.
        what: which of them, for the error.

    Raises:
        ServiceError: INVALID; it has another form.
    """
    if not text.startswith(PREFIX):
        raise invalid(f"invalid {what}: no prefix")
    number, colon, rest = text[len(PREFIX) :].partition(":")
    if not colon:
        raise invalid(f"invalid {what}: wrong number of fields")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise invalid(f"invalid {what}: version number could not be decoded")
    return int(number) or 1, rest  # the very first keys of Vault counted from zero


def version_in(text: str) -> int:
    """Returns the version that a text names, or 0 where it names none."""
    number, colon, _ = text[len(PREFIX) : len(PREFIX) + 10].partition(":")
    if colon and text.startswith(PREFIX) and number.isascii() and number.isdigit():
        return int(number) or 1
    return 0


def versions_in(texts: Iterable[str]) -> set[int]:
    """Returns the versions that texts name, 0 for those that name none."""
    # Many texts begin alike: each beginning is looked at once.
    return {
        version_in(head) for head in {text[: text.find(":", len(PREFIX)) + 1] for text in texts}
    }

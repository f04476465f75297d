"""What the contracts say of themselves, in their comments."""

import functools
import importlib.resources

import msgspec


@functools.cache
def _comments() -> dict[str, str]:
    file = importlib.resources.files("strongroom").joinpath("comments.json")
    return msgspec.json.decode(file.read_bytes(), type=dict[str, str])


def comment(full_name: str) -> str:
    """Returns what the contract says of a service, method, message or field; empty where it is silent."""
    return _comments().get(full_name, "")

"""What the translations share."""

from strongroom_runtime.errors import invalid


def secret_path(path: str) -> str:
    """Returns a secret's path without the slash at its end that some clients send.

    Raises:
        ServiceError: INVALID where nothing is left.
    """
    path = path.rstrip("/")
    if not path:
        raise invalid("path: must not be empty")
    return path


def folder_path(path: str) -> str:
    """Returns a folder's path without the slash at its end; empty for the mount itself."""
    return path.rstrip("/")

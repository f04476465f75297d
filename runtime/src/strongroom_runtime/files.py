"""Files that are there whole or not at all, whatever ends the process that writes them."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that its owner alone can read, in the place of the one that is there.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes it last that a file in a folder was made, renamed or removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that are there whole or not at all, whatever ends the process that writes them; why one cannot be used."""

import errno
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that its owner alone can read, in the place of the one that is there.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # that of a full disk names none
        raise


def reason(error: OSError) -> str:
    """Returns why a file or folder cannot be used, for people who are to mend it."""
    number = error.errno
    if number in (errno.EACCES, errno.EPERM):
        return f"the user of this process ({os.geteuid()}) has no right to it"
    texts = {
        errno.ENOENT: "there is no such file or folder",
        errno.ENOTDIR: "there is a file where a folder should be",
        errno.EEXIST: "there is a file where a folder should be",
        errno.EISDIR: "there is a folder where a file should be",
        errno.EROFS: "it is on a file system that is only for reading",
        errno.ENOSPC: "its disk is full",
        errno.EDQUOT: "its disk has no more room for the user of this process",
    }
    return texts.get(number or 0) or error.strerror or type(error).__name__


def sync_folder(folder: Path) -> None:
    """Makes it last that a file in a folder was made, renamed or removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Which writers still have a file open: each holds a lock of its own on it, which goes with its process.

The locks are on single bytes far behind any end of the file, so that they keep nobody from anything. They belong to
an open file description (Linux), not to a process, so that several writers of one process have one each.
"""

import fcntl
import re
import struct

_NAME = re.compile("[0-9a-f]{16}")
# What fcntl(2) takes on 64-bit Linux: type, whence, start, length, process.
_LOCK = struct.Struct("hhqqi4x")


def claim(descriptor: int, writer: str) -> None:
    """Holds the lock of a writer for as long as the file stays open.

    Raises:
        OSError: the file system has no such locks, or somebody else holds it.
    """
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, writer))


def is_gone(descriptor: int, writer: str) -> bool:
    """Returns whether nobody holds the lock of a writer; False where the file system cannot say."""
    if not _NAME.fullmatch(writer):
        return False  # the file may say anything
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, writer))
    except OSError:
        return False
    return bool(_LOCK.unpack(answer)[0] == fcntl.F_UNLCK)


def _lock(kind: int, writer: str) -> bytes:
    """Returns what fcntl takes: the byte stands for the writer, whose name is 16 hexadecimal digits."""
    return _LOCK.pack(kind, 0, (1 << 62) + (int(writer, 16) >> 2), 1, 0)

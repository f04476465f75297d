"""The key file of a static seal."""

import base64
import contextlib
from pathlib import Path

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_seal.domain.ceremony import KEY_BYTES


def read_static_key(file: Path) -> bytes:
    """Returns the 32 bytes of a key file: raw, hexadecimal or base64.

    Raises:
        ServiceError: FAILED_PRECONDITION; it names the file.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ServiceError(Kind.FAILED_PRECONDITION, f"{file}: {error.strerror}") from error
    if len(content) == KEY_BYTES:
        return content
    text = content.decode(errors="replace").strip()
    for decode in (bytes.fromhex, lambda t: base64.b64decode(t, validate=True)):
        with contextlib.suppress(ValueError):
            key = decode(text)
            if len(key) == KEY_BYTES:
                return key
    raise ServiceError(
        Kind.FAILED_PRECONDITION, f"{file}: takes {KEY_BYTES} bytes, raw, hexadecimal or base64"
    )

"""Files and folders that settings name, looked at before anything starts: what is wrong is said with the setting."""

import contextlib
import errno
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from strongroom_cli.settings import ServerConfig
from strongroom_runtime.config import ConfigError, variable_of
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.files import reason, write_whole
from strongroom_runtime.transport.certificates import Identity, Renewable

# Where they are given, they come before the folder in which else they are.
_PLACES = ("audit_dir", "pki_dir", "seal_key_file", "tls_cert", "tls_key", "data_dir")


def check_places(config: ServerConfig) -> None:
    """Looks at what the services of a process read, and makes the folder of audit files where it is missing.

    Raises:
        ConfigError: something is not there, not of its kind, or may not be used.
    """
    targets = config.targets
    if "audit" in targets:
        # Its files may be writable where it is not.
        with _naming(_given("audit_dir", config), config.audit_folder, made=True):
            config.audit_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if "seal" in targets and config.seal == "static" and config.seal_key_file is not None:
        _check_seal_key(config.seal_key_file)
    if config.pki_dir is not None:
        with _naming("pki_dir", config.pki_dir):
            os.stat(f"{config.pki_dir}/.")  # a Path would drop what tells a folder from a file
    if config.etcd_pki_dir is not None:
        for name in ("ca.pem", "client.pem", "client.key"):
            _check_file("etcd_pki_dir", config.etcd_pki_dir / name)
    if config.etcd_password_file is not None:
        _check_file("etcd_password_file", config.etcd_password_file)
    if "gateway" in targets and config.tls and config.tls_cert and config.tls_key:
        _check_pair(config.tls_cert, config.tls_key)


def check_folder(setting: str, folder: Path) -> None:
    """Makes a folder where it is missing, and sees that files can be made in it.

    Raises:
        ConfigError: it cannot be made or used.
    """
    with _naming(setting, folder, made=True):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_ready_file(file: Path) -> None:
    """Sees that a file can be written whose folder has to be there.

    Raises:
        ConfigError: it cannot.
    """
    with _naming("ready_file", file):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=file.parent):
            pass


def write_ready_file(file: Path, content: bytes) -> None:
    """Writes how the platform is reached.

    Raises:
        ConfigError: it cannot be written any more.
    """
    with _naming("ready_file", file):
        write_whole(file, content)


def explained(error: OSError, config: ServerConfig) -> str:
    """Returns what an operator is to be told of an error, with the setting by which a file is where it is."""
    if not isinstance(error.filename, str):
        return str(error)
    file = Path(error.filename)
    for setting in _PLACES:
        place = getattr(config, setting)
        if place is not None and place in (file, *file.parents):
            return _said(setting, file, error)
    return f"{file}: {reason(error)}"


def _given(setting: str, config: ServerConfig) -> str:
    """Returns a setting that is a folder, or the one that has that folder where it is not given."""
    return setting if getattr(config, setting) is not None else "data_dir"


def _check_file(setting: str, file: Path) -> None:
    with _naming(setting, file), file.open("rb") as opened:
        opened.read(1)


def _check_seal_key(file: Path) -> None:
    from strongroom_seal.static_key import read_static_key

    _check_file("seal_key_file", file)
    try:
        read_static_key(file)
    except ServiceError as error:
        raise ConfigError(f"seal_key_file: {error.message}") from None


def _check_pair(certificate: Path, key: Path) -> None:
    _check_file("tls_cert", certificate)
    _check_file("tls_key", key)
    try:
        Renewable(Identity(None, certificate, key))
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            f"tls_cert and tls_key: {certificate} and {key} are not a certificate and its key in PEM"
        ) from None


@contextlib.contextmanager
def _naming(setting: str, place: Path, *, made: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(_said(setting, place, error, made=made)) from error


def _said(setting: str, place: Path, error: OSError, *, made: bool = False) -> str:
    """Returns a text that names the setting, what is wrong, and how it is mended."""
    why = reason(error)
    if made and isinstance(error, FileNotFoundError):
        why = "no folder can be made there"
    elif setting == "ready_file" and isinstance(error, FileNotFoundError):
        why = "its folder is not there, and is not made"
    flag = f"--{setting.replace('_', '-')}"
    names = flag if setting == "ready_file" else f"{flag} or {variable_of(setting)}"
    return f"{setting}: {place}: {why}. Mend that, or name another place by {names}"

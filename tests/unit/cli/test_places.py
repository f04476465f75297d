"""Files and folders that cannot be used: the error names the setting, what is wrong, and how it is mended."""

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom_cli.places import (
    check_folder,
    check_places,
    check_ready_file,
    explained,
    write_ready_file,
)
from strongroom_cli.settings import ServerConfig
from strongroom_runtime.config import ConfigError
from strongroom_runtime.files import write_whole
from strongroom_runtime.transport import pki

NO_FOLDER = "there is a file where a folder should be"
NO_FILE = "there is a folder where a file should be"
ABSENT = "there is no such file or folder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    pki.initialise(tmp_path / "pki", "test.internal", ("gateway",), ())
    return tmp_path


def config(folder: Path, **settings: Any) -> ServerConfig:
    places = {name: folder / value for name, value in settings.items()}
    return ServerConfig(data_dir=folder / "data", **places)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"audit_dir": "file"}, NO_FOLDER),
        ({"audit_dir": "file/x"}, NO_FOLDER),
        ({"pki_dir": "absent"}, ABSENT),
        ({"pki_dir": "file"}, NO_FOLDER),
        ({"etcd_pki_dir": "absent"}, ABSENT),
        ({"etcd_pki_dir": "file"}, NO_FOLDER),
        ({"etcd_password_file": "absent"}, ABSENT),
        ({"etcd_password_file": "folder"}, NO_FILE),
        ({"seal_key_file": "absent"}, ABSENT),
        ({"seal_key_file": "folder"}, NO_FILE),
        ({"seal_key_file": "file"}, "takes 32 bytes"),
        ({"tls_cert": "absent", "tls_key": "pki/gateway.key"}, ABSENT),
        ({"tls_key": "folder", "tls_cert": "pki/gateway.pem"}, NO_FILE),
        ({"tls_cert": "pki/gateway.pem", "tls_key": "file"}, "not a certificate and its key"),
        ({"tls_cert": "pki/gateway.pem", "tls_key": "pki/ca.key"}, "not a certificate and its key"),
    ],
)
def test_a_setting_is_named(folder: Path, settings: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_places(config(folder, **settings))
    said = str(caught.value)
    setting = next(iter(settings))
    assert said.startswith(setting)
    assert text in said
    if "there is" in text:
        assert f"--{setting.replace('_', '-')} or STRONGROOM_{setting.upper()}" in said


def test_what_can_be_used_is_used(folder: Path) -> None:
    write_whole(folder / "seal.key", os.urandom(32))
    fine = config(
        folder,
        pki_dir="pki",
        audit_dir="new/audit",
        seal_key_file="seal.key",
        tls_cert="pki/gateway.pem",
        tls_key="pki/gateway.key",
    )
    check_places(fine)
    assert list((folder / "new/audit").iterdir()) == []
    check_ready_file(folder / "ready")
    assert not (folder / "ready").exists()


def test_a_process_looks_at_what_its_services_read_alone(folder: Path) -> None:
    other = ServerConfig(
        target="kv", audit_dir=folder / "file", seal_key_file=folder / "absent", tls_cert=folder
    )
    check_places(other)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_no_folder_can_be_made_everywhere() -> None:
    with pytest.raises(ConfigError, match="data_dir: /proc/x: no folder can be made there"):
        check_folder("data_dir", Path("/proc/x"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("absent/ready", "its folder is not there"),
        ("folder", NO_FILE),
        ("file/ready", NO_FOLDER),
    ],
)
def test_a_ready_file_is_looked_at_before_anything_is_started(
    folder: Path, name: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=f"ready_file: .*{text}.*--ready-file"):
        check_ready_file(folder / name)


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Makes root, who has rights everywhere, somebody else for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_without_rights() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with without_rights(), pytest.raises(ConfigError, match=r"data_dir: .*has no right to it"):
            check_folder("data_dir", folder)
        with without_rights(), pytest.raises(ConfigError, match=r"data_dir: .*has no right to it"):
            check_folder("data_dir", folder / "new")
        with (
            without_rights(),
            pytest.raises(ConfigError, match=r"ready_file: .*has no right to it"),
        ):
            check_ready_file(folder / "ready")
        folder.chmod(0o755)


def test_a_full_disk_is_told_with_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as the kernel does: without a name

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_whole(folder / "folder" / "key", b"x")
    with pytest.raises(ConfigError, match=r"ready_file: .*/ready: its disk is full"):
        write_ready_file(folder / "ready", b"{}")
    where = config(folder, pki_dir="folder")
    assert explained(caught.value, where).startswith(
        f"pki_dir: {folder}/folder/key: its disk is full"
    )
    where = ServerConfig(data_dir=folder)
    assert explained(caught.value, where).startswith("data_dir: ")
    where = ServerConfig(data_dir=folder / "data")
    assert explained(caught.value, where) == f"{folder}/folder/key: its disk is full"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["server", "--data-dir", "file"], "data_dir: file: " + NO_FOLDER),
        (["dev", "--ready-file", "absent/ready"], "ready_file: absent/ready: its folder"),
        (["dev", "--audit-dir", "file/x"], "audit_dir: file/x: " + NO_FOLDER),
        (["serve-one", "--pki-dir", "absent"], "pki_dir: absent: " + ABSENT),
        (["server", "--config", "absent"], "--config: absent: " + ABSENT),
        (["server", "--config", "folder"], "--config: folder: " + NO_FILE),
    ],
)
def test_the_command_says_it_and_starts_nothing(
    folder: Path, arguments: list[str], text: str
) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "strongroom", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr

"""Files that are there whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from strongroom_runtime.files import write_whole


def test_a_file_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    write_whole(tmp_path / "key", b"first")
    write_whole(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"second"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_is_cut_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def cut_off(*_: object) -> None:
        raise InterruptedError

    write_whole(tmp_path / "old", b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, cut_off)
        for name in ("old", "new"):
            with pytest.raises(InterruptedError):
                write_whole(tmp_path / name, b"other")
    assert (tmp_path / "old").read_bytes() == b"whole"
    assert not (tmp_path / "new").exists()
    write_whole(tmp_path / "new", b"again")
    assert (tmp_path / "new").read_bytes() == b"again"

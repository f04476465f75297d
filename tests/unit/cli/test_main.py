"""The command line."""

from pathlib import Path

from click.testing import CliRunner

from strongroom_cli.main import main


def test_pki_init_makes_what_is_missing(tmp_path: Path) -> None:
    arguments = ["pki", "init", "--dir", str(tmp_path / "pki"), "--service", "kv"]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    made = {p.name: p.read_bytes() for p in (tmp_path / "pki").iterdir()}
    assert set(made) == {"ca.pem", "ca.key", "kv.pem", "kv.key"}
    again = CliRunner().invoke(main, [*arguments, "--service", "auth"])
    assert again.exit_code == 0, again.output
    assert made.items() <= {p.name: p.read_bytes() for p in (tmp_path / "pki").iterdir()}.items()


def test_pki_init_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["pki", "init", "--dir", str(tmp_path / "file" / "pki")])
    assert result.exit_code == 1
    assert "Not a directory" in result.output
    assert "Traceback" not in result.output

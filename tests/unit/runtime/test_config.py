"""Configuration from file, environment and flags."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from strongroom_runtime.config import ConfigError, load


@dataclass(frozen=True)
class Sample:
    listen: str = "127.0.0.1:8200"
    workers: int = 1
    ttl_seconds: float = 3.0
    tls: bool = True
    data_dir: Path = Path("data")
    token: str | None = None
    endpoints: tuple[str, ...] = ()


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "strongroom.toml"
    file.write_text(text)
    return file


def test_flags_beat_the_environment_beats_the_file_beats_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, 'listen = "a"\nworkers = 2\nttl_seconds = 4\nendpoints = ["x", "y"]')
    environment = {"STRONGROOM_WORKERS": "3", "STRONGROOM_TTL_SECONDS": "5", "OTHER": "1"}
    flags = {"ttl_seconds": "6", "data_dir": "d", "token": None}
    config = load(Sample, file=file, environment=environment, flags=flags)
    assert config == Sample("a", 3, 6.0, True, Path("d"), None, ("x", "y"))


def test_lists_come_from_commas_and_switches_from_words() -> None:
    config = load(Sample, environment={"STRONGROOM_ENDPOINTS": "a, b,", "STRONGROOM_TLS": "off"})
    assert (config.endpoints, config.tls) == (("a", "b"), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker = 2", "unknown setting worker; known: listen, workers"),
        ('workers = "many"', "workers: takes a whole number"),
        ("workers = 1.5", "workers: takes a whole number"),
        ("workers = true", "workers: takes a whole number"),
        ('tls = "perhaps"', "tls: takes true or false"),
        ("endpoints = [1]", "endpoints: takes a list of texts"),
        ("workers = ", "not TOML"),
    ],
)
def test_an_error_names_the_setting_and_what_it_takes(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(Sample, file=write(tmp_path, text))
    assert "strongroom.toml" in str(caught.value)


def test_an_error_does_not_repeat_the_value() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Sample, environment={"STRONGROOM_WORKERS": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "STRONGROOM_WORKERS" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config: .*absent\.toml: there is no such file"):
        load(Sample, file=tmp_path / "absent.toml")

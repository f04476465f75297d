"""The command line."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.ports import free_port

from strongroom_cli.main import main
from strongroom_cli.outside_etcd import etcd_config
from strongroom_cli.settings import (
    DBCREDS,
    ETCD_PASSWORD,
    SERVICES,
    ServerConfig,
    check,
    of_service,
    sanitized,
)
from strongroom_cli.supervisor import _arguments
from strongroom_dbcreds.config import Config
from strongroom_runtime.config import load
from strongroom_runtime.etcd.server import QUOTA_MIB
from strongroom_runtime.ports import address_towards, hostport
from strongroom_runtime.transport.leaving import STREAM_SECONDS
from strongroom_runtime.version import shown, version


@pytest.mark.parametrize(
    "arguments", [["dev", "--no-tls"], ["server"], ["pki", "init"], ["etcd", "users"]]
)
def test_a_working_folder_that_was_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: the working folder was removed: ")


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


def test_etcd_users_makes_passwords_once_and_shows_none(tmp_path: Path) -> None:
    arguments = ["etcd", "users", "--password-dir", str(tmp_path / "it's")]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    files = sorted((tmp_path / "it's").iterdir())
    assert [file.name for file in files] == sorted([*SERVICES, "root"])
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    passwords = [file.read_text() for file in files]
    assert len(set(passwords)) == len(SERVICES) + 1
    assert not any(password in first.output for password in passwords)
    again = CliRunner().invoke(main, arguments)
    assert again.output == first.output
    assert [file.read_text() for file in files] == passwords


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--etcd-user=kv"], "etcd_user: is for an outside cluster"),
        (["--etcd-user=kv", "--etcd-endpoints=127.0.0.1:1"], "etcd_user: needs etcd_password"),
        (["--etcd-password-file=x"], "etcd_password_file: is for etcd_user"),
        (["--etcd-password=secret"], "No such option"),
    ],
)
def test_a_user_of_etcd_without_what_it_takes_is_refused(flags: list[str], text: str) -> None:
    result = CliRunner().invoke(main, ["server", *flags])
    assert result.exit_code != 0
    assert text in result.output


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("from-file\n")
    monkeypatch.setenv(ETCD_PASSWORD, "from-environment")
    given = ServerConfig(etcd_user="kv", etcd_endpoints=("127.0.0.1:1",))
    for config, password in (
        (given, "from-environment"),
        (replace(given, etcd_password_file=tmp_path / "password"), "from-file"),
    ):
        assert check(config, {ETCD_PASSWORD: "from-environment"}) == []
        login = etcd_config(config).login
        assert login is not None
        assert login.password() == password
        assert password not in f"{config}{etcd_config(config)}{sanitized(config)}"


def test_settings_have_the_defaults_of_what_they_are_for() -> None:
    assert ServerConfig().etcd_quota_mib == QUOTA_MIB
    assert ServerConfig().stream_drain_seconds == STREAM_SECONDS


@pytest.mark.parametrize("command", ["server", "dev", "serve-one"])
def test_help_tells_what_a_setting_takes_and_what_holds_without_it(command: str) -> None:
    result = CliRunner().invoke(
        main, [command, "--help"], terminal_width=400, max_content_width=400
    )
    text = " ".join(result.output.split())
    for field in fields(ServerConfig):
        if field.name != "member" and (field.name, command) != ("split", "serve-one"):
            assert f"--{field.name.replace('_', '-')} " in text
            assert field.metadata["text"] in text
    for told in (
        "--workers NUMBER How many processes serve clients. [default: 1]",
        "--tls [true|false] Whether clients are served over TLS. [default: true]",
        "--listen HOST:PORT Where HTTP is served; a port from 1. [default: 127.0.0.1:8200]",
        "--audit-dir PATH Below which audit files may be. Else a folder in data-dir. --audit-files",
    ):
        assert told in text
    assert ("[default: a temporary folder]" in text) == (command == "dev")
    assert "--member" not in text


def test_the_time_outs_of_dbcreds_are_settings_with_the_defaults_of_the_service(
    tmp_path: Path,
) -> None:
    assert Config(**of_service(DBCREDS, ServerConfig())) == Config()
    file = tmp_path / "server.toml"
    file.write_text("dbcreds_probe_seconds = 4\ndbcreds_parallel = 3\n")
    loaded = load(
        ServerConfig,
        file=file,
        environment={"STRONGROOM_DBCREDS_CHANGE_SECONDS": "2.5"},
        flags={"dbcreds_parallel": "5"},
    )
    made = Config(**of_service(DBCREDS, loaded))
    assert (made.probe_seconds, made.change_seconds, made.parallel) == (4.0, 2.5, 5)
    assert check(loaded, {}) == []
    document = Path("docs/databases.md").read_text()
    for name, value in of_service(DBCREDS, ServerConfig()).items():
        assert f"| `dbcreds_{name}` | {value:g} |" in document


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_time_outs_that_are_none_are_refused(value: str) -> None:
    result = CliRunner().invoke(main, ["server", f"--dbcreds-creation-seconds={value}"])
    assert result.exit_code != 0
    assert "dbcreds" in result.output and "takes a number" in result.output


@pytest.mark.parametrize("flags", [["--split"], ["--workers=2"]])
@pytest.mark.parametrize("name", ["health-listen", "direct-listen", "advertise"])
def test_one_address_for_several_processes_is_refused(name: str, flags: list[str]) -> None:
    result = CliRunner().invoke(main, ["server", f"--{name}=127.0.0.1:1", *flags])
    assert result.exit_code != 0
    assert f"{name.replace('-', '_')}: is for one process" in result.output


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"direct_listen": "0.0.0.0:7001", "direct_advertise": "kv-0.kv:17001"}, ""),
        ({"direct_listen": "7001"}, "direct_listen: takes host:port"),
        ({"direct_listen": "0.0.0.0:70000"}, "direct_listen: takes host:port"),
        ({"listen": "127.0.0.1:0"}, "listen: takes host:port with a port from 1"),
        ({"grpc_listen": "[::1]:00"}, "grpc_listen: takes host:port with a port from 1"),
        ({"health_listen": "127.0.0.1:0"}, "health_listen: takes host:port with a port from 1"),
        ({"advertise": "kv-0"}, "advertise: takes host:port"),
        ({"advertise": "0.0.0.0:7000"}, "advertise: takes host:port by which others reach"),
        ({"advertise": "kv-0:0"}, "advertise: takes host:port by which others reach"),
        ({"direct_advertise": "kv-0:17001"}, "direct_advertise: is for a port that direct_listen"),
        (
            {"direct_listen": "0.0.0.0:0", "direct_advertise": "kv-0:17001"},
            "direct_advertise: is for a port that direct_listen",
        ),
    ],
)
def test_addresses_for_other_processes_are_checked(settings: dict[str, Any], wrong: str) -> None:
    assert [text[: len(wrong)] for text in check(ServerConfig(**settings), {})] == (
        [wrong] if wrong else []
    )


def test_the_health_of_nobody_is_bad() -> None:
    result = CliRunner().invoke(main, ["health", f"--health-listen=127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "does not answer (ConnectionRefusedError)" in result.output


async def test_the_address_of_this_machine_is_the_one_from_which_it_reaches_etcd() -> None:
    assert await address_towards(["nowhere.invalid:1", "127.0.0.1:2379"]) == "127.0.0.1"
    assert await address_towards(["unix:/somewhere/client:0"]) == "127.0.0.1"
    assert (hostport("::1", 7), hostport("127.0.0.1", 7)) == ("[::1]:7", "127.0.0.1:7")
    with pytest.raises(OSError, match="give advertise"):
        await address_towards(["nowhere.invalid:1"])


@pytest.mark.parametrize(
    "version", ["1.19", "v1.19.0", "1.19.0+ent", "1.19.0\n", "latest", "1.19.0.1"]
)
def test_the_version_of_vault_that_clients_are_told_is_one(version: str) -> None:
    (text,) = check(ServerConfig(vault_version=version), {})
    assert text.startswith("vault_version: takes three numbers")


@pytest.mark.parametrize("mebibytes", [0, 63, 8193, -64])
def test_a_quota_that_etcd_cannot_live_with_is_refused(mebibytes: int) -> None:
    (text,) = check(ServerConfig(etcd_quota_mib=mebibytes), {})
    assert text == "etcd_quota_mib: takes a number from 64 to 8192"
    assert check(ServerConfig(etcd_quota_mib=64), {}) == []


def test_clients_are_told_a_version_of_vault_and_ours_or_ours_alone() -> None:
    assert check(ServerConfig(vault_version=""), {}) == []
    assert shown(ServerConfig().vault_version) == f"1.19.0+strongroom.{version()}"
    assert shown("") == version()


def test_a_setting_that_was_emptied_reaches_the_processes() -> None:
    assert "--vault-version=" in _arguments(ServerConfig(vault_version=""))
    given = _arguments(ServerConfig())
    assert f"--vault-version={ServerConfig().vault_version}" in given
    assert [text for text in given if text.endswith("=")] == []


@pytest.mark.parametrize(
    "text", ["a.b", "s.mine", "srs.mine", "my own", " mine", "mine\n", "gr\u00fcn"]
)
def test_a_root_token_that_cannot_be_one_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    started: list[Any] = []

    def run(*given: Any) -> int:
        started.append(given)
        return 0

    monkeypatch.setattr("strongroom_cli.platform.run", run)
    refused = CliRunner().invoke(main, ["dev", "--root-token", text])
    assert (refused.exit_code, started) == (2, [])
    assert "--root-token" in refused.output and "without dots" in refused.output
    assert text not in refused.output
    taken = CliRunner().invoke(main, ["dev", "--root-token", "my-own_token"])
    assert (taken.exit_code, len(started)) == (0, 1)

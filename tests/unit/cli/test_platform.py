"""What a platform says when it comes up, and when it does not."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from strongroom_cli import platform
from strongroom_cli.bootstrap import Secrets
from strongroom_cli.platform import Start
from strongroom_cli.settings import ServerConfig
from strongroom_cli.spawning import Executing
from strongroom_cli.supervisor import Supervisor


async def test_it_says_that_a_start_took_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(Supervisor):
        async def start(self) -> None:
            raise TimeoutError  # as `asyncio.timeout` does: without a text

    monkeypatch.setattr(platform, "Supervisor", Slow)
    start = Start(initialise=True, furnish=False)
    assert await platform._run(ServerConfig(data_dir=tmp_path), start, Executing()) == 1
    assert capsys.readouterr().err == "strongroom: cannot start: it took too long\n"


def test_what_it_says_to_export_is_understood_by_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = tmp_path / "it's a $folder" / "ca.pem"
    platform._announce(
        ServerConfig(), Start(True, True), Secrets("$HOME 'x", ()), ca, initialised=True
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "export " in line]
    shell = shutil.which("sh")
    assert shell
    printed = subprocess.check_output(
        [shell, "-c", "\n".join([*lines, 'printf "%s|%s" "$BAO_CACERT" "$BAO_TOKEN"'])], text=True
    )
    assert printed == f"{ca}|$HOME 'x"


async def test_the_secrets_of_a_new_platform_are_shown_though_its_audit_file_cannot_be_written() -> (
    None
):
    class Refusing:
        async def usable(self, token: str) -> None:
            pass

        async def furnish(self, token: str, audit_file: str) -> None:
            code, none = grpc.StatusCode.INTERNAL, grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, none, none, details="no audit device took the entry")

    made = Secrets("the root token", ("a share",))
    refusing: Any = Refusing()
    assert await platform._furnished(refusing, Start(True, True, "chosen"), made) == made


@pytest.mark.parametrize(
    ("cores", "workers", "said"), [(8, 1, "--workers=4"), (2, 1, None), (8, 4, None)]
)
def test_it_says_that_more_processes_would_use_the_other_cores(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cores: int,
    workers: int,
    said: str | None,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    platform._announce(
        ServerConfig(workers=workers), Start(True, True), None, None, initialised=True
    )
    shown = capsys.readouterr().out
    assert said in shown if said else "--workers" not in shown

"""A platform that does not come up."""

from pathlib import Path

import pytest

from strongroom_cli import platform
from strongroom_cli.platform import Start
from strongroom_cli.settings import ServerConfig
from strongroom_cli.supervisor import Supervisor


async def test_it_says_that_a_start_took_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(Supervisor):
        async def start(self) -> None:
            raise TimeoutError  # as `asyncio.timeout` does: without a text

    monkeypatch.setattr(platform, "Supervisor", Slow)
    start = Start(initialise=True, furnish=False)
    assert await platform._run(ServerConfig(data_dir=tmp_path), start) == 1
    assert capsys.readouterr().err == "strongroom: cannot start: it took too long\n"

"""The README's tour, run as it stands there."""

import os
import re
import subprocess
from pathlib import Path

from tests.integration.platforms import BIN, ROOT, Platform

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_tour(platform: Platform) -> None:
    found = re.search(r"<!-- tour -->\n```\n(.*?)```\n<!-- tour -->", README.read_text(), re.DOTALL)
    assert found is not None
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(platform.folder),
        "BAO_ADDR": platform.address,
        "BAO_CACERT": platform.ca,
        "BAO_TOKEN": ROOT,
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", found.group(1)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("hunter2") == 2
    assert "not allowed, as it should be" in result.stdout
    assert "revoked, and refused at once" in result.stdout
    program = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert program is not None
    source = program.group(1).replace("127.0.0.1:8202", platform.grpc_address)
    result = subprocess.run(
        [BIN / "python", "-c", source],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "hunter2" in result.stdout, result.stderr
    platform.bao("auth", "disable", "approle")
    platform.bao("policy", "delete", "app")

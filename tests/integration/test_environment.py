"""What the environment of a whole platform may say."""

from pathlib import Path

import pytest

from tests.integration.platforms import TOPOLOGIES, start
from tests.ports import free_port


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_processes_reach_each_other_past_a_proxy(tmp_path: Path, topology: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("grpc_proxy", "https_proxy", "http_proxy"), nobody)
    without = dict.fromkeys(("no_grpc_proxy", "no_proxy", "NO_PROXY"), "")
    with start(tmp_path, topology, environment={**proxies, **without}) as platform:
        assert platform.http("POST", "secret/data/kept", json={"data": {"v": 1}}).ok

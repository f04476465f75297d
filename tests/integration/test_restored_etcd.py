"""An etcd that is restored from a backup while the platform runs: its processes begin anew, each by itself."""

import os
import signal
from pathlib import Path

import pytest

from strongroom_runtime.etcd.client import EtcdConfig
from strongroom_runtime.transport.certificates import Identity
from tests import snapshots
from tests.integration.platforms import TOPOLOGIES, Platform, start, until


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_processes_begin_anew_and_show_what_was_restored(topology: str, tmp_path: Path) -> None:
    with start(tmp_path / "platform", topology, command="server") as platform:
        names = [name for name in platform.pids if name not in ("etcd", "supervisor")]
        before = {name: platform.child(name) for name in names}
        write(platform, "kept", 1)
        revoked = token_of(platform)
        etcd = platform.folder / "data" / "etcd"
        pki = platform.folder / "data" / "pki"
        config = EtcdConfig(
            (f"127.0.0.1:{(etcd / 'port').read_text().strip()}",), Identity.of(pki, "client")
        )
        snapshots.save(config, tmp_path / "snapshot")

        write(platform, "kept", 2)
        write(platform, "lost", 1)
        lost = token_of(platform)
        platform.http("POST", "auth/token/revoke", platform.root, json={"token": revoked})
        assert status(platform, "kept", lost) == 200
        assert status(platform, "kept", revoked) == 403

        # The supervisor sleeps meanwhile, so that it starts what was restored.
        running = platform.child("etcd")
        platform.process.send_signal(signal.SIGSTOP)
        os.kill(running, signal.SIGKILL)
        # In the same cluster, processes that saw nothing of what came after the snapshot have nothing to forget.
        token = "etcd-cluster" if topology == "all" else "restored"
        snapshots.restore(tmp_path / "snapshot", etcd, token)
        platform.process.send_signal(signal.SIGCONT)

        until(lambda: all(platform.child(name) != before[name] for name in names))
        until(lambda: status(platform, "kept", platform.root) == 200)
        assert read(platform, "kept") == 1
        assert status(platform, "lost", platform.root) == 404
        assert status(platform, "kept", lost) == 403
        assert (
            status(platform, "kept", revoked) == 200
        )  # the past is back, as the documentation says
        write(platform, "kept", 3)
        assert read(platform, "kept") == 3
        after = {name: platform.child(name) for name in names}
        log = (platform.folder / "output.log").read_text()
        assert log.count("etcd is not what this process began with") == len(names)
        assert {name: platform.child(name) for name in names} == after


def write(platform: Platform, name: str, number: int) -> None:
    answer = platform.http(
        "POST", f"secret/data/{name}", token=platform.root, json={"data": {"n": number}}
    )
    assert answer.status_code == 200, answer.text


def read(platform: Platform, name: str) -> int:
    answer = platform.http("GET", f"secret/data/{name}", token=platform.root)
    return int(answer.json()["data"]["data"]["n"])


def status(platform: Platform, name: str, token: str) -> int:
    return platform.http("GET", f"secret/data/{name}", token=token).status_code


def token_of(platform: Platform) -> str:
    answer = platform.http(
        "POST", "auth/token/create", token=platform.root, json={"policies": ["root"], "ttl": "1h"}
    )
    return str(answer.json()["auth"]["client_token"])

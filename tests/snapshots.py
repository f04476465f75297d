"""Taking a snapshot of an embedded etcd, and putting it in the place of its data."""

import shutil
import subprocess
from pathlib import Path

from strongroom_runtime.etcd.client import EtcdConfig
from strongroom_runtime.etcd.server import find_binary


def save(config: EtcdConfig, file: Path) -> None:
    """Writes a snapshot of what an etcd has now."""
    identity = config.identity
    tls = (
        (
            f"--cacert={identity.ca}",
            f"--cert={identity.certificate}",
            f"--key={identity.key}",
        )
        if identity is not None
        else ()
    )
    endpoint = f"{'https' if tls else 'http'}://{config.endpoints[0]}"
    _run("etcdctl", f"--endpoints={endpoint}", *tls, "snapshot", "save", str(file))


def restore(file: Path, folder: Path, token: str = "etcd-cluster") -> None:
    """Puts a snapshot in the place of the data of an embedded etcd that does not run.

    Args:
        file: the snapshot.
        folder: of the etcd.
        token: of the cluster; another than before makes it another cluster.
    """
    shutil.rmtree(folder / "data")
    peer = "http://127.0.0.1:1"
    _run(
        "etcdutl", "snapshot", "restore", str(file), f"--data-dir={folder / 'data'}",
        "--name=embedded", f"--initial-cluster=embedded={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster-token={token}",
    )  # fmt: skip


def _run(tool: str, *arguments: str) -> None:
    command = [str(find_binary().with_name(tool)), *arguments]
    environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr

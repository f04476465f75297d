"""Taking a snapshot of an embedded etcd, and putting it in the place of its data."""

import shutil
from pathlib import Path

from strongroom_runtime.etcd.client import EtcdConfig
from tests.etcd_tools import etcdctl, run


def save(config: EtcdConfig, file: Path) -> None:
    """Writes a snapshot of what an etcd has now."""
    etcdctl(config, "snapshot", "save", str(file))


def restore(file: Path, folder: Path, token: str = "etcd-cluster") -> None:
    """Puts a snapshot in the place of the data of an embedded etcd that does not run.

    Args:
        file: the snapshot.
        folder: of the etcd.
        token: of the cluster; another than before makes it another cluster.
    """
    shutil.rmtree(folder / "data")
    peer = "http://127.0.0.1:1"
    run([
        "etcdutl", "snapshot", "restore", str(file), f"--data-dir={folder / 'data'}",
        "--name=embedded", f"--initial-cluster=embedded={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster-token={token}",
    ])  # fmt: skip

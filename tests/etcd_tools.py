"""The tools that come with etcd, for what its operators do with it."""

import subprocess
from collections.abc import Sequence

from strongroom_runtime.etcd.client import EtcdConfig
from strongroom_runtime.etcd.server import find_binary

_SECONDS = 300  # for a script of dozens of commands, on a machine that is busy


def run(command: Sequence[str], input: str = "", **environment: str) -> str:
    """Runs a command that finds etcd's tools, and returns what it printed."""
    result = subprocess.run(
        command, input=input, capture_output=True, text=True, timeout=_SECONDS, check=False,
        env={
            "PATH": f"{find_binary().parent}:/usr/bin:/bin", "ETCDCTL_API": "3", **environment,
        },
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def reached(config: EtcdConfig) -> dict[str, str]:
    """Returns the variables by which etcdctl finds an etcd."""
    identity = config.identity
    if identity is None:
        return {"ETCDCTL_ENDPOINTS": f"http://{config.endpoints[0]}"}
    return {
        "ETCDCTL_ENDPOINTS": f"https://{config.endpoints[0]}",
        "ETCDCTL_CACERT": str(identity.ca),
        "ETCDCTL_CERT": str(identity.certificate),
        "ETCDCTL_KEY": str(identity.key),
    }


def etcdctl(config: EtcdConfig, *arguments: str) -> None:
    """Runs etcdctl on an etcd that has no users."""
    run(["etcdctl", *arguments], **reached(config))

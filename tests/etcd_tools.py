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


def etcdctl(config: EtcdConfig, *arguments: str) -> None:
    """Runs etcdctl on an etcd that has no users."""
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
    run(["etcdctl", f"--endpoints={endpoint}", *tls, *arguments])

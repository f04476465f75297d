"""The tools that come with etcd, for what its operators do with it."""

import subprocess

from strongroom_runtime.etcd.client import EtcdConfig
from strongroom_runtime.etcd.server import find_binary


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
    _run("etcdctl", f"--endpoints={endpoint}", *tls, *arguments)


def etcdutl(*arguments: str) -> None:
    """Runs etcdutl, which works on files."""
    _run("etcdutl", *arguments)


def _run(tool: str, *arguments: str) -> None:
    command = [str(find_binary().with_name(tool)), *arguments]
    environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr

"""The image of the platform answers a client outside of its container."""

from pathlib import Path
from typing import Any

import requests
from testcontainers.core.container import DockerContainer

from tests.containers.cluster import build
from tests.integration.platforms import until
from tests.ports import free_port

HEADERS = {"X-Vault-Token": "image-root"}


def test_the_image_serves_secrets_and_holds_no_tools_for_tests(tmp_path: Path) -> None:
    port, ca = free_port(), tmp_path / "ca.pem"
    command = "dev --listen 0.0.0.0:8200 --grpc-listen 0.0.0.0:8202 --root-token image-root"
    container = (
        DockerContainer(build("deploy/Dockerfile", "strongroom:test"))
        .with_bind_ports(8200, port)
        .with_command(command)
    )
    with container as running:

        def copied() -> bool:
            code, output = running.exec(["sh", "-c", "cat /tmp/strongroom-dev-*/pki/ca.pem"])
            ca.write_bytes(output)
            return bool(code == 0)

        until(copied)

        def call(method: str, path: str, **options: Any) -> requests.Response:
            url = f"https://127.0.0.1:{port}/v1/{path}"
            # Each time: a bundle that the environment names would go before a session's own.
            return requests.request(
                method, url, headers=HEADERS, verify=str(ca), timeout=60, **options
            )

        until(lambda: call("GET", "sys/mounts/secret").ok)
        write = call("POST", "secret/data/a", json={"data": {"k": "v"}})
        assert write.ok, write.text
        assert call("GET", "secret/data/a").json()["data"]["data"] == {"k": "v"}
        assert running.exec("id -u")[1].strip() != b"0"
        assert running.exec(["/opt/strongroom/.venv/bin/python", "-c", "import pytest"])[0] != 0

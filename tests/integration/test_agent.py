"""The agent and the proxy of `bao`: they log in by AppRole, renew, and render or pass on what applications read."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import requests

from tests.integration.platforms import BAO, Platform, until
from tests.ports import free_port

POLICY = """
path "secret/data/agent/*" { capabilities = ["read"] }
path "secret/metadata/agent/*" { capabilities = ["list"] }
"""


@contextlib.contextmanager
def running(platform: Platform, folder: Path, command: str, config: str) -> Iterator[Path]:
    """Runs the agent or the proxy of `bao` with AppRole auto-auth; yields its log."""
    platform.bao("policy", "write", "agent", "-", input=POLICY)
    platform.http("POST", "sys/auth/agents", json={"type": "approle"})
    role = {"token_policies": "agent", "token_ttl": "18s", "token_max_ttl": "40s"}
    platform.http("POST", "auth/agents/role/app", json=role)
    made = platform.http("GET", "auth/agents/role/app/role-id").json()["data"]
    (folder / "role").write_text(made["role_id"])
    secret = platform.http("POST", "auth/agents/role/app/secret-id").json()["data"]["secret_id"]
    (folder / "secret").write_text(secret)
    (folder / "config.hcl").write_text(
        f"""
        vault {{
          address = "{platform.address}"
          ca_cert = "{platform.ca}"
        }}
        auto_auth {{
          method "approle" {{
            mount_path = "auth/agents"
            config = {{
              role_id_file_path = "{folder / "role"}"
              secret_id_file_path = "{folder / "secret"}"
              remove_secret_id_file_after_reading = false
            }}
          }}
          sink "file" {{ config = {{ path = "{folder / "token"}" }} }}
        }}
        {config}
        """
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BAO, command, f"-config={folder / 'config.hcl'}", "-log-level=debug"],
            stdout=output, stderr=output, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )  # fmt: skip
    try:
        yield log
    finally:
        process.terminate()
        process.wait(60)
        platform.http("DELETE", "sys/auth/agents")


def test_the_agent_renders_templates_and_logs_in_again(platform: Platform, tmp_path: Path) -> None:
    platform.bao("kv", "put", "secret/agent/app", "password=first")
    template = f"""
    template_config {{ static_secret_render_interval = "1s" }}
    template {{
      contents = "{{{{ with secret \\"secret/data/agent/app\\" }}}}{{{{ .Data.data.password }}}}{{{{ end }}}}"
      destination = "{tmp_path / "rendered"}"
    }}
    """
    with running(platform, tmp_path, "agent", template) as log:
        rendered = tmp_path / "rendered"
        until(lambda: rendered.read_text() == "first")
        token = until(lambda: (tmp_path / "token").read_text())
        platform.bao("kv", "put", "secret/agent/app", "password=second")
        until(lambda: rendered.read_text() == "second")
        # Its token lives 18 seconds, and is renewed up to 40; after that it needs a new one.
        until(lambda: (tmp_path / "token").read_text() != token)
        platform.bao("kv", "put", "secret/agent/app", "password=third")
        until(lambda: rendered.read_text() == "third")
        assert "renewed auth token" in log.read_text()
        assert "permission denied" not in log.read_text()


def test_the_proxy_adds_its_token(platform: Platform, tmp_path: Path) -> None:
    platform.bao("kv", "put", "secret/agent/app", "password=first")
    port = free_port()
    proxy = f"""
    api_proxy {{ use_auto_auth_token = true }}
    cache {{}}
    listener "tcp" {{
      address = "127.0.0.1:{port}"
      tls_disable = true
      require_request_header = true
    }}
    """
    with running(platform, tmp_path, "proxy", proxy):

        def ask(path: str, **headers: str) -> requests.Response:
            return requests.get(f"http://127.0.0.1:{port}/v1/{path}", headers=headers, timeout=60)

        guard = {"X-Vault-Request": "true"}
        until(lambda: ask("secret/data/agent/app", **guard).ok)
        read = ask("secret/data/agent/app", **guard).json()
        assert read["data"]["data"] == {"password": "first"}
        assert ask("secret/data/other", **guard).status_code == 403
        assert ask("secret/data/agent/app").status_code == 412
        listed = ask("secret/metadata/agent/?list=true", **guard)
        assert "app" in listed.json()["data"]["keys"]

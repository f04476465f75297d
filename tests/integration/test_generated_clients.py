"""The clients of clients/examples, generated from the contracts, built as their README says, against a platform."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.platforms import BIN, Platform, start

EXAMPLES = Path(__file__).parent.parent.parent / "clients" / "examples"
POLICY = """
path "secret/data/app" { capabilities = ["read"] }
path "transit/+/app" { capabilities = ["update"] }
"""


@pytest.fixture(scope="module")
def credentials(shared_folder: Path) -> Iterator[dict[str, str]]:
    """The environment that the README of the examples asks for."""
    with start(shared_folder) as platform:
        yield furnished(platform)


def furnished(platform: Platform) -> dict[str, str]:
    client = platform.hvac()
    client.secrets.kv.v2.create_or_update_secret("app", {"password": "hunter2"})
    client.sys.enable_secrets_engine("transit")
    client.secrets.transit.create_key("app")
    client.sys.create_or_update_policy("app", POLICY)
    client.sys.enable_auth_method("approle")
    approle = client.auth.approle
    approle.create_or_update_approle("app", token_policies=["app"], token_ttl="20m")
    return {
        "STRONGROOM_GRPC_ADDR": platform.grpc_address,
        "STRONGROOM_CACERT": platform.ca,
        "ROLE_ID": approle.read_role_id("app")["data"]["role_id"],
        "SECRET_ID": approle.generate_secret_id("app")["data"]["secret_id"],
    }


def run(language: str, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=EXAMPLES / language, env={**os.environ, "PATH": path, **environment},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def fetched(language: str, command: str) -> bool:
    """Returns whether what a client needs could be fetched; a registry may be slow, or not be there."""
    try:
        return run(language, "sh", "-c", command).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.parametrize(
    ("language", "fetch", "build", "program"),
    [
        (
            "go",
            "go mod download",
            "go build tool && buf generate && go build -o gen/app .",
            "gen/app",
        ),
        (
            "java",
            "mvn -q -B dependency:resolve",
            "mvn -q -B package",
            "java -cp target/client.jar:target/lib/* com.example.client.Main",
        ),
        ("typescript", "npm ci", "npm run generate && npm run build", "node dist/main.js"),
    ],
    ids=["go", "java", "typescript"],
)
def test_a_generated_client_logs_in_and_works(
    credentials: dict[str, str], language: str, fetch: str, build: str, program: str
) -> None:
    tool = fetch.split()[0]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    if not fetched(language, fetch):
        pytest.skip(f"the libraries of the {language} client cannot be fetched: {fetch}")
    built = run(language, "sh", "-ec", build)
    if (
        "Could not transfer artifact" in built.stdout
    ):  # Maven fetches its plugins when it comes to them
        pytest.skip(f"the libraries of the {language} client cannot be fetched: {build}")
    assert built.returncode == 0, built.stdout + built.stderr
    ran = run(language, *program.split(), **credentials)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines() == [
        'secret: {"password": "hunter2"}',
        "write: PERMISSION_DENIED",
        "items: 10000",
    ]

"""Nothing secret is left anywhere: not in logs, audit files, spans, metrics, etcd's files; and no name in etcd's."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.collectors import Collector, Meters, collecting
from tests.integration.platforms import ROOT, TOPOLOGIES, Platform, start

SECRETS = {
    "value": "hunter2-in-a-secret",
    "old": "hunter2-of-an-old-version",
    "password": "hunter2-of-a-person",
    "cubbyhole": "hunter2-in-a-cubbyhole",
    "wrapped": "hunter2-in-a-wrapping",
    "plaintext": "hunter2-to-be-encrypted",
}
NAMES = (
    "payroll-folder",
    "database-secret",
    "ann-the-user",
    "machine-role",
    "readers-policy",
    "orders-key",
)


@dataclass
class Used:
    """A platform that was used and has ended: its folder, all that was secret, and what it exported."""

    folder: Path
    secrets: set[str]
    exported: list[bytes]


@pytest.fixture(scope="module", params=TOPOLOGIES)
def used(request: pytest.FixtureRequest, shared_folder: Path) -> Used:
    """Uses a platform in every way, and ends it."""
    spans, meters, folder = Collector(), Meters(), shared_folder / request.param
    with (
        pytest.MonkeyPatch.context() as patch,
        collecting(patch, spans, meters),
        start(folder, request.param, "--log-level=debug") as platform,
    ):
        secret = {*SECRETS.values(), ROOT, *platform.unseal_keys, *_use(platform)}
    assert {"gateway", "auth", "kv", "transit", "audit"} <= {service for service, *_ in spans.spans}
    return Used(folder, secret, spans.raw + meters.raw)


def _use(platform: Platform) -> set[str]:
    """Returns the tokens and ids that it made."""
    made: set[str] = set()
    path = "payroll-folder/database-secret"
    for key in ("old", "value"):
        platform.http("POST", f"secret/data/{path}", json={"data": {"password": SECRETS[key]}})
    assert SECRETS["value"] in platform.http("GET", f"secret/data/{path}").text
    platform.http("GET", f"secret/data/{path}?version=1")
    rule = 'path "secret/data/payroll-folder/*" { capabilities = ["read"] }'
    platform.http("POST", "sys/policies/acl/readers-policy", json={"policy": rule})
    token = platform.http("POST", "auth/token/create", json={"policies": ["readers-policy"]}).json()
    made.add(token["auth"]["client_token"])
    platform.http(
        "POST", "cubbyhole/x", token["auth"]["client_token"], json={"v": SECRETS["cubbyhole"]}
    )
    platform.http("POST", "sys/auth/userpass", json={"type": "userpass"})
    person = {"password": SECRETS["password"], "token_policies": "readers-policy"}
    platform.http("POST", "auth/userpass/users/ann-the-user", json=person)
    login = platform.http("POST", "auth/userpass/login/ann-the-user", None, json=person)
    made.add(login.json()["auth"]["client_token"])
    platform.http(
        "POST", "auth/userpass/login/ann-the-user", None, json={"password": "wrong-hunter2"}
    )
    platform.http("POST", "sys/auth/approle", json={"type": "approle"})
    platform.http("POST", "auth/approle/role/machine-role", json={})
    role = platform.http("GET", "auth/approle/role/machine-role/role-id").json()["data"]["role_id"]
    secret_id = platform.http("POST", "auth/approle/role/machine-role/secret-id").json()["data"]
    body = {"role_id": role, "secret_id": secret_id["secret_id"]}
    made.add(secret_id["secret_id"])
    made.add(
        platform.http("POST", "auth/approle/login", None, json=body).json()["auth"]["client_token"]
    )
    wrapped = platform.http(
        "POST",
        "sys/wrapping/wrap",
        json={"v": SECRETS["wrapped"]},
        headers={"X-Vault-Wrap-TTL": "60"},
    ).json()
    made.add(wrapped["wrap_info"]["token"])
    platform.http("POST", "sys/mounts/transit", json={"type": "transit"})
    platform.http("POST", "transit/keys/orders-key", json={"exportable": True})
    plaintext = base64.b64encode(SECRETS["plaintext"].encode()).decode()
    encrypted = platform.http("POST", "transit/encrypt/orders-key", json={"plaintext": plaintext})
    decrypted = platform.http(
        "POST", "transit/decrypt/orders-key", json=encrypted.json()["data"]
    ).json()["data"]
    assert decrypted == {"plaintext": plaintext}
    exported = platform.http("GET", "transit/export/encryption-key/orders-key").json()["data"]
    made.add(exported["keys"]["1"])
    # What fails is logged too.
    platform.http("POST", f"secret/data/{path}", json={"data": SECRETS["value"]})
    platform.http("GET", f"secret/data/{path}", SECRETS["value"])
    platform.http("POST", "sys/wrapping/unwrap", json={"token": SECRETS["wrapped"]})
    return made | {"wrong-hunter2"}


def test_nothing_is_left(used: Used) -> None:
    data = used.folder / "data"
    logs = [used.folder / "output.log", data / "etcd" / "etcd.log", *(data / "audit").iterdir()]
    database = [f for f in (data / "etcd" / "data").rglob("*") if f.is_file()]
    assert len(database) >= 2
    contents = {file.name: file.read_bytes() for file in (*logs, *database)}
    contents["an export"] = b"".join(used.exported)
    for name, content in contents.items():
        for secret in used.secrets:
            for form in _forms(secret):
                assert form not in content, f"{name} has a secret"
    for file in database:
        content = file.read_bytes()
        for name in NAMES:
            assert name.encode() not in content, f"{file.name} has {name}"
    assert len((data / "audit" / "audit.log").read_text().splitlines()) > 20


def _forms(secret: str) -> list[bytes]:
    """Returns a secret as it might be spelled."""
    raw = secret.encode()
    return [
        raw,
        base64.b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        json.dumps(secret)[1:-1].encode(),
    ]


def test_the_audit_files_hold_together(used: Used, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from strongroom_cli.main import main

    file = used.folder / "data" / "audit" / "audit.log"
    sound = CliRunner().invoke(main, ["audit", "verify", str(file)])
    assert sound.exit_code == 0, sound.output
    lines = file.read_bytes().splitlines(keepends=True)
    file = tmp_path / "audit.log"
    file.write_bytes(b"".join(lines[:5] + lines[6:]))
    broken = CliRunner().invoke(main, ["audit", "verify", str(file)])
    assert broken.exit_code == 1
    assert f"the first bad line is {file}:6" in broken.output

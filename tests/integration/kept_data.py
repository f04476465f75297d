"""Data of every kind, and whether a platform still has it: for versions that start on what older ones stored.

`python -m tests.integration.kept_data FILE` makes an archive (.tar.xz) of what the version at hand stores. Each
release adds one to tests/data, and none is ever changed.
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.integration.platforms import ROOT, Platform, b64, start

TEXT = b64(b"a text that is kept")
CONTEXT = b64(b"a context")
CENTURY = "876000h"
POLICY = 'path "secret/data/kept" { capabilities = ["read"] }'
CIPHERS = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "rsa-2048")
SIGNERS = ("ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-3072", "ml-dsa-44")

# As a file beside the data: what a platform gave that it must know again.
FACTS = "facts.json"


class Caller:
    """Requests with the token of the root, or another; what is refused is an error."""

    def __init__(self, platform: Platform, token: str = ROOT) -> None:
        self._platform = platform
        self._token = token

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = self._platform.http(method, path, self._token, json=body, **options)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}


def fill(platform: Platform) -> dict[str, Any]:
    """Stores something of every kind, and returns what is needed to find it again."""
    call = Caller(platform)
    facts: dict[str, Any] = {}
    _fill_secrets(call)
    facts |= _fill_identities(platform, call)
    facts |= _fill_transit(call)
    _fill_databases(call)
    call("PUT", "sys/rotate")  # what is written from here on is under another key of the barrier
    call("POST", "secret/data/later", {"data": {"n": 2}})
    call("POST", "sys/quotas/rate-limit/kept", {"path": "secret/", "rate": 100_000})
    call("POST", "sys/config/auditing/request-headers/x-kept", {"hmac": False})
    return facts


def check(platform: Platform, facts: dict[str, Any]) -> None:
    """Asserts that a platform has all that was stored, and does with it what it did."""
    call = Caller(platform)
    _check_secrets(call)
    _check_identities(platform, call, facts)
    _check_transit(call, facts)
    _check_databases(call)
    assert call("GET", "secret/data/later")["data"]["data"] == {"n": 2}
    assert call("GET", "sys/quotas/rate-limit/kept")["data"]["rate"] == 100_000
    headers = call("GET", "sys/config/auditing/request-headers")["data"]["headers"]
    assert headers["x-kept"] == {"hmac": False}
    assert call("GET", "sys/key-status")["data"]["term"] == 2


def _fill_secrets(call: Caller) -> None:
    for number in range(3):
        call("POST", "secret/data/kept", {"data": {"n": number, "ü": [None, 1.5, "x" * 100]}})
    call("POST", "secret/delete/kept", {"versions": [1]})
    call("POST", "secret/destroy/kept", {"versions": [2]})
    call("POST", "secret/metadata/kept", {"custom_metadata": {"owner": "a"}, "max_versions": 7})
    call("POST", "secret/data/a/b/c", {"data": {"deep": True}})
    call("POST", "sys/mounts/old", {"type": "kv", "description": "version 1"})
    call("POST", "old/kept", {"v": 1})
    call("POST", "sys/mounts/moving", {"type": "kv", "options": {"version": "2"}})
    call("POST", "moving/data/kept", {"data": {"v": 2}})
    call("POST", "sys/remount", {"from": "moving", "to": "moved"})
    call("POST", "cubbyhole/kept", {"v": 3})


def _check_secrets(call: Caller) -> None:
    found = call("GET", "secret/data/kept")["data"]
    assert found["data"] == {"n": 2, "ü": [None, 1.5, "x" * 100]}
    metadata = call("GET", "secret/metadata/kept")["data"]
    assert metadata["custom_metadata"] == {"owner": "a"}
    assert metadata["max_versions"] == 7
    assert metadata["versions"]["1"]["deletion_time"]
    assert metadata["versions"]["2"]["destroyed"]
    call("POST", "secret/undelete/kept", {"versions": [1]})
    assert call("GET", "secret/data/kept?version=1")["data"]["data"]["n"] == 0
    assert call("LIST", "secret/metadata/")["data"]["keys"] == ["a/", "kept", "later"]
    assert call("GET", "secret/data/a/b/c")["data"]["data"] == {"deep": True}
    assert call("GET", "old/kept")["data"] == {"v": 1}
    assert call("GET", "sys/mounts")["data"]["old/"]["description"] == "version 1"
    assert call("GET", "moved/data/kept")["data"]["data"] == {"v": 2}
    assert call("GET", "cubbyhole/kept")["data"] == {"v": 3}


def _fill_identities(platform: Platform, call: Caller) -> dict[str, Any]:
    call("POST", "sys/policies/acl/kept", {"policy": POLICY})
    call("POST", "sys/auth/token/tune", {"max_lease_ttl": CENTURY})
    body = {"policies": ["kept"], "ttl": CENTURY, "meta": {"for": "tests"}, "num_uses": 3}
    token = call("POST", "auth/token/create", body)["auth"]
    revoked = call("POST", "auth/token/create", {"policies": ["kept"], "ttl": CENTURY})["auth"]
    call("POST", "auth/token/revoke", {"token": revoked["client_token"]})
    Caller(platform, token["client_token"])("GET", "secret/data/kept")
    call("POST", "auth/token/roles/kept", {"allowed_policies": ["kept"], "orphan": True})
    call("POST", "sys/auth/userpass", {"type": "userpass"})
    call("POST", "auth/userpass/users/anna", {"password": "a-password", "token_policies": "kept"})
    call("POST", "sys/auth/approle", {"type": "approle"})
    call("POST", "auth/approle/role/app", {"token_policies": "kept", "token_ttl": "20m"})
    wrap = {"X-Vault-Wrap-TTL": CENTURY}
    return {
        "token": token["client_token"],
        "accessor": token["accessor"],
        "revoked": revoked["client_token"],
        "role_id": call("GET", "auth/approle/role/app/role-id")["data"]["role_id"],
        "secret_id": call("POST", "auth/approle/role/app/secret-id")["data"]["secret_id"],
        "wrapped": call("GET", "secret/data/kept", headers=wrap)["wrap_info"]["token"],
    }


def _check_identities(platform: Platform, call: Caller, facts: dict[str, Any]) -> None:
    assert call("GET", "sys/policies/acl/kept")["data"]["policy"] == POLICY
    found = call("POST", "auth/token/lookup-accessor", {"accessor": facts["accessor"]})["data"]
    assert (found["meta"], found["num_uses"]) == ({"for": "tests"}, 2)
    for status in (200, 200, 403):
        answer = platform.http("GET", "secret/data/kept", facts["token"])
        assert answer.status_code == status, answer.text
    assert platform.http("GET", "secret/data/kept", facts["revoked"]).status_code == 403
    assert call("GET", "auth/token/roles/kept")["data"]["orphan"] is True
    logins = {
        "auth/userpass/login/anna": {"password": "a-password"},
        "auth/approle/login": {"role_id": facts["role_id"], "secret_id": facts["secret_id"]},
    }
    for path, body in logins.items():
        token = call("POST", path, body)["auth"]["client_token"]
        Caller(platform, token)("GET", "secret/data/kept")
    unwrapped = Caller(platform, facts["wrapped"])("POST", "sys/wrapping/unwrap")
    assert unwrapped["data"]["data"]["n"] == 2


def _fill_transit(call: Caller) -> dict[str, Any]:
    call("POST", "sys/mounts/transit", {"type": "transit"})
    for name in (*CIPHERS, *SIGNERS, "hmac"):
        size = {"key_size": 32} if name == "hmac" else {}
        call("POST", f"transit/keys/{name}", {"type": name, **size})
    for name in ("derived", "convergent"):
        kind = {"derived": True, "convergent_encryption": name == "convergent"}
        call("POST", f"transit/keys/{name}", kind)
    ciphertexts = [_encrypted(call, name) for name in (*CIPHERS, "derived", "convergent")]
    for name in ("aes256-gcm96", "ed25519"):
        call("POST", f"transit/keys/{name}/rotate")
    call("POST", "transit/keys/gone", {})
    call("POST", "transit/keys/gone/config", {"deletion_allowed": True})
    call("DELETE", "transit/keys/gone")
    signed = {
        name: call("POST", f"transit/sign/{name}", {"input": TEXT})["data"]["signature"]
        for name in SIGNERS
    }
    return {
        "ciphertexts": ciphertexts,
        "signatures": signed,
        "hmac": call("POST", "transit/hmac/hmac", {"input": TEXT})["data"]["hmac"],
    }


def _encrypted(call: Caller, name: str) -> tuple[str, str]:
    body = {"plaintext": TEXT, **_context(name)}
    return name, call("POST", f"transit/encrypt/{name}", body)["data"]["ciphertext"]


def _context(name: str) -> dict[str, str]:
    return {"context": CONTEXT} if name in ("derived", "convergent") else {}


def _check_transit(call: Caller, facts: dict[str, Any]) -> None:
    for name, ciphertext in facts["ciphertexts"]:
        body = {"ciphertext": ciphertext, **_context(name)}
        assert call("POST", f"transit/decrypt/{name}", body)["data"]["plaintext"] == TEXT
    convergent = dict(facts["ciphertexts"])["convergent"]
    assert _encrypted(call, "convergent") == ("convergent", convergent)
    assert _encrypted(call, "aes256-gcm96")[1].startswith("vault:v2:")
    for name, signature in facts["signatures"].items():
        body = {"input": TEXT, "signature": signature}
        assert call("POST", f"transit/verify/{name}", body)["data"]["valid"]
    body = {"input": TEXT, "hmac": facts["hmac"]}
    assert call("POST", "transit/verify/hmac", body)["data"]["valid"]
    assert "gone" not in call("LIST", "transit/keys")["data"]["keys"]


def _fill_databases(call: Caller) -> None:
    call(
        "POST",
        "sys/policies/password/kept",
        {"policy": 'length = 20\nrule "charset" { charset = "abcdef" }'},
    )
    call("POST", "sys/mounts/db", {"type": "database"})
    config = {
        "plugin_name": "postgresql-database-plugin", "verify_connection": False, "allowed_roles": "*",
        "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/x",
        "username": "admin", "password": "a-database-password", "password_policy": "kept",
    }  # fmt: skip
    call("POST", "db/config/kept", config)
    statements = ["CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'"]
    role = {"db_name": "kept", "creation_statements": statements, "default_ttl": "5m"}
    call("POST", "db/roles/kept", role)


def _check_databases(call: Caller) -> None:
    made = call("GET", "sys/policies/password/kept/generate")["data"]["password"]
    assert len(made) == 20
    assert set(made) <= set("abcdef")
    config = call("GET", "db/config/kept")["data"]
    assert config["connection_details"]["username"] == "admin"
    assert config["password_policy"] == "kept"
    assert call("GET", "db/roles/kept")["data"]["default_ttl"] == 300


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Puts the data of an archive into the folder of a platform, and returns what there is to know of it."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "data")
    facts: dict[str, Any] = json.loads((folder / "data" / FACTS).read_bytes())
    return facts


def _pack(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with start(folder) as platform:
            facts = fill(platform)
        data = folder / "data"
        facts["audit_lines"] = len((data / "audit" / "audit.log").read_text().splitlines())
        (data / FACTS).write_text(json.dumps(facts, indent=1))
        with tarfile.open(archive, "w:xz") as packed:
            for name in (
                FACTS,
                "seal.key",
                "audit",
                "etcd/data",
            ):  # certificates end, and are made anew
                packed.add(data / name, name)


if __name__ == "__main__":
    _pack(Path(sys.argv[1]))

"""Replacing shares by `bao operator` and hvac: verified, encrypted with PGP, and the root key alone."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysequoia
import pytest

from tests.integration.platforms import TOPOLOGIES, Platform, start, until


@pytest.fixture(params=TOPOLOGIES)
def shamir(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Platform]:
    """A platform that nobody has initialised yet."""
    with start(tmp_path / "p", request.param, "--seal=shamir", command="server") as platform:
        yield platform


class Holder:
    """Someone with a PGP key, whose public half is in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._key = pysequoia.Tsk.generate("Holder <holder@example.com>")
        file.write_text(str(self._key.extract_certificate()))

    def open(self, message: str) -> str:
        binary = base64.b64decode(message)
        opened = pysequoia.decrypt(binary, decryptor=self._key.decryptor())
        assert opened.bytes is not None
        return opened.bytes.decode()


def test_shares_from_pgp_keys_to_verified_ones(shamir: Platform, tmp_path: Path) -> None:
    holders = [Holder(tmp_path / f"{name}.asc") for name in ("one", "two")]
    files = ",".join(str(holder.file) for holder in holders)
    made = asked(
        shamir, "init", "-key-shares=2", "-key-threshold=2", f"-pgp-keys={files}",
        f"-root-token-pgp-key={holders[0].file}",
    )  # fmt: skip
    old = [h.open(key) for h, key in zip(holders, made["unseal_keys_b64"], strict=True)]
    root = holders[0].open(made["root_token"])
    for key in old:
        shamir.bao("operator", "unseal", key)
    until(shamir.serves)
    shamir.bao("secrets", "enable", "-path=secret", "-version=2", "kv", token=root)
    shamir.bao("kv", "put", "secret/x", "v=1", token=root)

    # To three new ones, verified.
    rotate = ("rotate-keys", "-key-shares=3", "-key-threshold=2")
    started = asked(shamir, *rotate, "-init", "-verify", token=root)
    assert started["verification_required"]
    nonce = f"-nonce={started['nonce']}"
    assert asked(shamir, "rotate-keys", nonce, old[0], token=root)["progress"] == 1
    new = asked(shamir, "rotate-keys", nonce, old[1], token=root)
    assert (new["complete"], len(new["keys"]), new["verification_required"]) == (True, 3, True)
    shamir.bao("operator", "seal", token=root)
    for key in old:  # which still count
        unseal(shamir, key)
    until(lambda: asked(shamir, "rotate-keys", "-verify", "-status", token=root)["started"])
    verify = ("rotate-keys", "-verify", f"-nonce={new['verification_nonce']}")
    assert asked(shamir, *verify, new["keys"][0], token=root)["progress"] == 1
    shamir.bao("operator", "rotate-keys", "-verify", "-cancel", token=root)
    restarted = asked(shamir, "rotate-keys", "-verify", "-status", token=root)
    assert restarted["progress"] == 0
    verify = ("rotate-keys", "-verify", f"-nonce={restarted['nonce']}")
    for key in new["keys"][1:]:
        said = shamir.bao("operator", *verify, key, token=root)
    assert "The rotation is complete" in said
    shamir.bao("operator", "seal", token=root)
    for key in new["keys"][:2]:
        unseal(shamir, key)
    until(shamir.serves)
    assert shamir.bao("kv", "get", "-field=v", "secret/x", token=root) == "1"

    # And back to encrypted ones, which are kept.
    started = asked(
        shamir, "rotate-keys", "-init", "-key-shares=2", "-key-threshold=2", "-backup",
        f"-pgp-keys={files}", token=root,
    )  # fmt: skip
    assert len(started["pgp_fingerprints"]) == 2
    for key in new["keys"][1:]:
        last = asked(shamir, "rotate-keys", f"-nonce={started['nonce']}", key, token=root)
    kept = asked(shamir, "rotate-keys", "-backup-retrieve", token=root)["data"]
    prints = started["pgp_fingerprints"]
    assert [kept["keys_base64"][name] for name in prints] == [[k] for k in last["keys_base64"]]
    shamir.bao("operator", "rotate-keys", "-backup-delete", token=root)
    gone = shamir.run_bao("operator", "rotate-keys", "-backup-retrieve", token=root)
    assert "no backed-up keys found" in gone.stderr
    keys = [h.open(key) for h, key in zip(holders, last["keys_base64"], strict=True)]

    # The root key alone, which nobody notices; an attempt to make a root token goes on.
    started = asked(shamir, "generate-root", "-init", f"-pgp-key={holders[1].file}", token=root)
    generate = ("generate-root", f"-nonce={started['nonce']}")
    asked(shamir, *generate, keys[0], token=root)
    assert shamir.http("POST", "sys/rotate/root", root).status_code == 204
    assert shamir.bao("kv", "get", "-field=v", "secret/x", token=root) == "1"
    token = holders[1].open(asked(shamir, *generate, keys[1], token=root)["encoded_token"])
    assert shamir.bao("kv", "get", "-field=v", "secret/x", token=token) == "1"
    shamir.bao("operator", "seal", token=root)
    for key in keys:
        unseal(shamir, key)
    until(shamir.serves)
    assert shamir.bao("kv", "get", "-field=v", "secret/x", token=root) == "1"


def test_hvac_rekeys_with_verification(shamir: Platform) -> None:
    made = shamir.http(
        "POST", "sys/init", None, json={"secret_shares": 1, "secret_threshold": 1}
    ).json()
    shamir.http("POST", "sys/unseal", None, json={"key": made["keys"][0]})
    client = shamir.hvac(made["root_token"])
    until(client.is_authenticated)
    started = client.sys.start_rekey(
        secret_shares=2, secret_threshold=2, require_verification=True
    )["data"]
    new = client.sys.rekey(made["keys"][0], nonce=started["nonce"])["data"]
    status = client.sys.read_rekey_verify_progress()["data"]
    assert (status["started"], status["t"], status["n"]) == (True, 2, 2)
    client.sys.cancel_rekey_verify()
    nonce = client.sys.read_rekey_verify_progress()["data"]["nonce"]
    assert nonce not in ("", status["nonce"])
    client.sys.rekey_verify(new["keys"][0], nonce=nonce)
    assert client.sys.rekey_verify(new["keys"][1], nonce=nonce)["data"]["complete"]
    assert not client.sys.read_rekey_progress()["data"]["started"]


def test_these_need_a_token_with_sudo(platform: Platform) -> None:
    for path in ("sys/rotate/root", "sys/rotate/root/verify", "sys/rotate/recovery/backup"):
        assert platform.http("POST", path, None, json={}).status_code in (403, 405)
        assert platform.http("GET", path, None).status_code in (403, 405)
    assert platform.http("GET", "sys/rekey/backup", None).status_code == 403
    assert platform.http("POST", "sys/rotate/root", None).status_code == 403
    assert platform.http("POST", "sys/rotate/root").status_code == 204


def unseal(platform: Platform, key: str) -> None:
    until(lambda: platform.bao("operator", "unseal", key))


def asked(platform: Platform, *arguments: str, token: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        platform.bao("operator", arguments[0], "-format=json", *arguments[1:], token=token)
    )
    return answer

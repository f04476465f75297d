"""The internal certificate authority."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from strongroom_runtime.transport import pki


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_every_service_gets_its_own_identity(tmp_path: Path) -> None:
    pki.initialise(tmp_path, "example.test", ["kv", "auth"], hosts=["kv.internal", "10.0.0.7"])
    names = load(tmp_path / "kv.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://example.test/service/kv"]
    assert "kv.internal" in names.value.get_values_for_type(x509.DNSName)
    load(tmp_path / "auth.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    pki.initialise(tmp_path, "example.test", ["kv"])
    for key in tmp_path.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", ["kv.pem", "kv.key", "ca.pem"])
def test_what_a_crash_left_out_is_made_anew(tmp_path: Path, lost: str) -> None:
    pki.initialise(tmp_path, "example.test", ["kv"])
    before = (tmp_path / "ca.key").read_bytes()
    (tmp_path / lost).unlink()
    if lost == "ca.pem":
        (tmp_path / "kv.pem").unlink()
    if lost == "kv.key":
        (tmp_path / "kv.pem").unlink()
    pki.initialise(tmp_path, "example.test", ["kv"])
    load(tmp_path / "kv.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))
    assert ((tmp_path / "ca.key").read_bytes() == before) == (lost != "ca.pem")


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    pki.initialise(tmp_path, "example.test", ["kv"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    pki.initialise(tmp_path, "example.test", ["kv"])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_no_key_is_printed(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(pki.create_authority("example.test"))

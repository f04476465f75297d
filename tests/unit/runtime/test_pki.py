"""The internal certificate authority."""

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from tests.certificates import age

from strongroom_runtime.transport import names, pki

DOMAIN = "example.test"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def named(path: Path) -> set[str]:
    return {names.shown(name) for name in names.in_certificate(load(path))}


def test_every_service_gets_its_own_identity(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv", "auth"], hosts=["kv.internal", "10.0.0.7"])
    assert named(tmp_path / "kv.pem") == LOOPBACK | {
        "spiffe://example.test/service/kv",
        "kv.example.test",
        "member.example.test",
        "kv.internal",
        "10.0.0.7",
    }
    load(tmp_path / "auth.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))


def test_etcd_and_its_clients_pass_for_no_service(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["etcd", "client"])
    for name in ("etcd", "client"):
        assert named(tmp_path / f"{name}.pem") == LOOPBACK | {f"spiffe://{DOMAIN}/service/{name}"}


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    for key in tmp_path.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", ["kv.pem", "kv.key", "ca.pem"])
def test_what_a_crash_left_out_is_made_anew(tmp_path: Path, lost: str) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    before = (tmp_path / "ca.key").read_bytes()
    (tmp_path / lost).unlink()
    if lost == "ca.pem":
        (tmp_path / "kv.pem").unlink()
    if lost == "kv.key":
        (tmp_path / "kv.pem").unlink()
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    load(tmp_path / "kv.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))
    assert ((tmp_path / "ca.key").read_bytes() == before) == (lost != "ca.pem")


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_no_key_is_printed(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(pki.create_authority(DOMAIN))


def test_a_certificate_of_an_earlier_version_is_issued_anew(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv", "etcd"])
    age(tmp_path, DOMAIN, ["kv"], "vault.elsewhere", "10.0.0.7")
    age(tmp_path, DOMAIN, ["etcd"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    public_key = load(tmp_path / "kv.pem").public_key()
    assert pki.initialise(tmp_path, DOMAIN, ["kv", "etcd"]) == ["kv"]
    assert named(tmp_path / "kv.pem") == LOOPBACK | {
        "spiffe://example.test/service/kv",
        "kv.example.test",
        "member.example.test",
        "vault.elsewhere",
        "10.0.0.7",
    }
    assert load(tmp_path / "kv.pem").public_key() == public_key
    load(tmp_path / "kv.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"kv.pem"}
    pki.check(tmp_path, DOMAIN, ["kv"])


def test_further_hosts_join_those_that_a_certificate_has(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["gateway"], hosts=["one.elsewhere"])
    before = named(tmp_path / "gateway.pem")
    assert pki.initialise(tmp_path, DOMAIN, ["gateway"], hosts=["two.elsewhere"]) == ["gateway"]
    assert named(tmp_path / "gateway.pem") == before | {"two.elsewhere"}


def test_a_certificate_that_is_about_to_end_is_issued_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "_LEAF_DAYS", 274)
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    key = (tmp_path / "kv.key").read_bytes()
    monkeypatch.undo()
    assert pki.initialise(tmp_path, DOMAIN, ["kv"]) == ["kv"]
    left = load(tmp_path / "kv.pem").not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left.days == 824
    assert (tmp_path / "kv.key").read_bytes() == key


def test_the_key_of_the_authority_is_needed_for_what_is_due_alone(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.key").unlink()
    assert pki.initialise(tmp_path, DOMAIN, ["kv"]) == []
    with pytest.raises(pki.CertificateError, match=r"ca\.key: is missing"):
        pki.initialise(tmp_path, DOMAIN, ["kv", "auth"])
    assert not (tmp_path / "auth.pem").exists()
    (tmp_path / "ca.key").write_bytes(key)


def test_a_certificate_of_another_authority_is_not_replaced(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        pki.initialise(folder, DOMAIN, ["kv"])
        age(folder, DOMAIN, ["kv"])
    foreign = (tmp_path / "b" / "kv.pem").read_bytes()
    (tmp_path / "a" / "kv.pem").write_bytes(foreign)
    with pytest.raises(pki.CertificateError, match="not of the CA beside it"):
        pki.initialise(tmp_path / "a", DOMAIN, ["kv"])
    assert (tmp_path / "a" / "kv.pem").read_bytes() == foreign


@pytest.mark.parametrize(
    "host",
    [
        "transit.example.test",
        "Transit.Example.TEST",
        "member.example.test",
        "example.test",
        "a.b.example.test",
        "*.example.test",
        "vault.elsewhere.",
        "two words",
        "*.*.test",
        "t*.elsewhere",
        "a,b",
        "",
        "-a",
        "a..b",
    ],
)
def test_hosts_that_could_pass_for_a_service_or_are_none_are_refused(
    tmp_path: Path, host: str
) -> None:
    with pytest.raises(ValueError, match="host '"):
        pki.initialise(tmp_path / "pki", DOMAIN, ["kv"], hosts=[host])
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize(
    "host",
    [
        "vault.elsewhere",
        "*.elsewhere",
        "my_host",
        "transit.example.test.elsewhere",
        "notexample.test",
        "10.0.0.7",
        "fd00::7",
    ],
)
def test_other_hosts_are_taken(tmp_path: Path, host: str) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"], hosts=[host])
    assert host in named(tmp_path / "kv.pem")


@pytest.mark.parametrize("service", ["kv.example", "*", "member", "", "KV", "a/b"])
def test_what_is_no_service_is_refused(tmp_path: Path, service: str) -> None:
    with pytest.raises(ValueError, match="service '"):
        pki.initialise(tmp_path / "pki", DOMAIN, [service])
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize("domain", ["", "Example.test", ".test", "a..b", "a/b", "*.test"])
def test_what_is_no_trust_domain_is_refused(tmp_path: Path, domain: str) -> None:
    with pytest.raises(ValueError, match="trust domain '"):
        pki.initialise(tmp_path / "pki", domain, ["kv"])


@pytest.mark.parametrize("name", ["transit.example.test", "*.example.test", "example.test"])
def test_a_certificate_that_already_passes_for_another_service_stops_everything(
    tmp_path: Path, name: str
) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    age(tmp_path, DOMAIN, ["kv"], name)
    before = (tmp_path / "kv.pem").read_bytes()
    with pytest.raises(pki.CertificateError, match="Make a new CA"):
        pki.initialise(tmp_path, DOMAIN, ["kv"])
    with pytest.raises(pki.CertificateError, match="Make a new CA"):
        pki.check(tmp_path, DOMAIN, ["kv"])
    assert (tmp_path / "kv.pem").read_bytes() == before


def test_what_lacks_names_is_refused_with_what_to_run(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    pki.check(tmp_path, DOMAIN, ["kv"])
    age(tmp_path, DOMAIN, ["kv"])
    with pytest.raises(pki.CertificateError) as caught:
        pki.check(tmp_path, DOMAIN, ["kv"])
    assert f"{tmp_path / 'kv.pem'}: does not name kv.example.test" in str(caught.value)
    assert "strongroom pki init --dir FOLDER --trust-domain example.test" in str(caught.value)


def test_what_is_of_another_trust_domain_is_refused(tmp_path: Path) -> None:
    pki.initialise(tmp_path, "other.test", ["kv"])
    for use in (pki.check, pki.initialise):
        with pytest.raises(pki.CertificateError, match="spiffe://other"):
            use(tmp_path, DOMAIN, ["kv"])


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_what_is_missing_or_no_certificate_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "kv.pem").write_bytes(content)
    with pytest.raises(pki.CertificateError, match=r"kv\.pem: is"):
        pki.check(tmp_path, DOMAIN, ["kv"])

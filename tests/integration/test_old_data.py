"""A new version starts on what an older one left on the disk."""

import subprocess
from pathlib import Path

import pytest

from strongroom_cli.settings import SERVICES
from strongroom_runtime.transport.pki import check, initialise
from tests.certificates import age
from tests.integration.kept_data import check as check_data
from tests.integration.kept_data import unpack
from tests.integration.platforms import BIN, TOPOLOGIES, start, until

ARCHIVES = sorted((Path(__file__).parent.parent / "data").glob("*.tar.xz"))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_what_an_older_version_stored_is_all_there(
    tmp_path: Path, topology: str, archive: Path
) -> None:
    facts = unpack(archive, tmp_path)
    with start(tmp_path, topology, command="server") as platform:
        until(lambda: platform.http("GET", "auth/token/lookup-self").status_code == 200)
        check_data(platform, facts)
        lines = platform.audit_log.read_text().splitlines()
        assert len(lines) > facts["audit_lines"]
    verified = subprocess.run(
        [str(BIN / "strongroom"), "audit", "verify", str(platform.audit_log)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_service_that_is_new_gets_its_certificate(tmp_path: Path, topology: str) -> None:
    with start(tmp_path, topology) as platform:
        platform.http("POST", "secret/data/kept", json={"data": {"n": 1}})
    for file in ("dbcreds.pem", "dbcreds.key"):
        (tmp_path / "data" / "pki" / file).unlink()
    with start(tmp_path, topology, command="server") as platform:
        until(lambda: platform.http("GET", "secret/data/kept").status_code == 200)
        assert platform.http("POST", "sys/mounts/db", json={"type": "database"}).status_code == 204
        assert platform.http("LIST", "db/config").status_code == 404


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_certificates_without_the_names_of_services_get_them(tmp_path: Path, topology: str) -> None:
    pki = tmp_path / "data" / "pki"
    with start(tmp_path, topology) as platform:
        platform.http("POST", "secret/data/kept", json={"data": {"n": 1}})
    age(pki, "strongroom.internal", SERVICES)
    keys = {file.name: file.read_bytes() for file in pki.glob("*.key")}
    with start(tmp_path, topology, command="server") as platform:
        until(lambda: platform.http("GET", "secret/data/kept").status_code == 200)
        check(pki, "strongroom.internal", SERVICES)
    assert {file.name: file.read_bytes() for file in pki.glob("*.key")} == keys


@pytest.mark.parametrize("command", ["server", "serve-one"])
def test_certificates_that_were_made_elsewhere_are_not_touched(
    tmp_path: Path, command: str
) -> None:
    pki = tmp_path / "pki"
    initialise(pki, "strongroom.internal", SERVICES)
    age(pki, "strongroom.internal", ["transit"])
    before = {file.name: file.read_bytes() for file in pki.iterdir()}
    options = [f"--pki-dir={pki}", f"--data-dir={tmp_path / 'data'}", "--target=kv,transit"]
    ended = subprocess.run(
        [str(BIN / "strongroom"), command, *options, "--etcd-endpoints=127.0.0.1:1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert f"{pki / 'transit.pem'}: does not name transit.strongroom.internal" in ended.stderr
    assert "run `strongroom pki init" in ended.stderr
    assert {file.name: file.read_bytes() for file in pki.iterdir()} == before

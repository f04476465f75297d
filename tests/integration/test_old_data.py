"""A new version starts on what an older one left on the disk."""

from pathlib import Path

import pytest

from tests.integration.platforms import TOPOLOGIES, start, until


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

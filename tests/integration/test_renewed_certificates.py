"""Certificates of a running platform are renewed in place, with keys of their own."""

import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from cryptography import x509

from strongroom.kv.v1 import kv2_pb2, kv2_pb2_grpc
from strongroom_runtime.transport import pki
from tests.integration.platforms import TOPOLOGIES, Platform, start, until
from tests.integration.test_grpc import AS_ROOT, stub

DOMAIN = "strongroom.internal"
NAMES = ("gateway", "auth", "kv", "transit", "dbcreds", "audit", "seal", "etcd", "client")


@pytest.fixture(scope="module", params=TOPOLOGIES)
def platform(request: pytest.FixtureRequest, shared_folder: Path) -> Iterator[Platform]:
    with start(shared_folder / request.param, request.param) as platform:
        assert platform.http("PUT", "secret/data/a", json={"data": {"k": "v"}}).ok
        yield platform


def shown(platform: Platform, address: str) -> x509.Certificate:
    """Returns the certificate that a listener shows."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=platform.ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), 60) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def listeners(platform: Platform) -> tuple[str, str]:
    return urlsplit(platform.address).netloc, platform.grpc_address


def test_all_listeners_and_callers_take_them_without_a_restart(platform: Platform) -> None:
    folder = platform.folder / "data" / "pki"
    before = [shown(platform, address) for address in listeners(platform)]
    pids = dict(platform.pids)
    failed: list[str] = []
    done = threading.Event()

    def load() -> None:
        client = platform.hvac()
        while not done.is_set():
            try:
                found = client.secrets.kv.v2.read_secret_version("a", raise_on_deleted_version=True)
                assert found["data"]["data"] == {"k": "v"}
            except Exception as error:
                failed.append(repr(error))

    readers = [threading.Thread(target=load) for _ in range(4)]
    for reader in readers:
        reader.start()
    for name in NAMES:
        (folder / f"{name}.pem").unlink()
    pki.initialise(folder, DOMAIN, NAMES)
    renewed = x509.load_pem_x509_certificate((folder / "gateway.pem").read_bytes())
    assert renewed not in before
    platform.process.send_signal(signal.SIGHUP)
    until(lambda: all(shown(platform, each) == renewed for each in listeners(platform)))
    done.set()
    for reader in readers:
        reader.join()
    assert not failed
    assert dict(platform.pids) == pids
    for pid in pids.values():
        os.kill(pid, 0)
    with platform.channel() as channel:
        request = kv2_pb2.ReadSecretRequest(mount="secret", path="a")
        assert stub(kv2_pb2_grpc.KvV2ServiceStub, channel).ReadSecret(request, metadata=AS_ROOT)


def test_half_a_file_changes_nothing_and_the_log_says_so(platform: Platform) -> None:
    folder = platform.folder / "data" / "pki"
    before = [shown(platform, address) for address in listeners(platform)]
    whole = (folder / "gateway.pem").read_bytes()
    log = platform.folder / "output.log"
    said = log.stat().st_size
    (folder / "gateway.pem").write_bytes(whole[:400])
    platform.process.send_signal(signal.SIGHUP)
    until(lambda: b"changed certificate files were not taken" in log.read_bytes()[said:])
    assert [shown(platform, address) for address in listeners(platform)] == before
    assert platform.http("GET", "secret/data/a").ok
    with platform.channel() as channel:
        grpc.channel_ready_future(channel).result(60)
    (folder / "gateway.pem").write_bytes(whole)


def test_servers_that_start_again_are_reached(platform: Platform) -> None:
    """Whoever calls them opens new connections, with certificates that did not exist when it started."""
    if "kv" not in platform.pids:
        pytest.skip("one process calls nobody")
    folder = platform.folder / "data" / "pki"
    for name in NAMES:
        (folder / f"{name}.pem").unlink()
    pki.initialise(folder, DOMAIN, NAMES)
    platform.process.send_signal(signal.SIGHUP)
    renewed = x509.load_pem_x509_certificate((folder / "gateway.pem").read_bytes())
    until(lambda: shown(platform, listeners(platform)[0]) == renewed)
    for name in ("kv", "etcd"):
        platform.kill(name)
        until(lambda: platform.http("GET", "secret/data/a").ok)

"""Streams of bytes while the processes that have them are told to end."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from strongroom.kv.v1 import kv2_pb2, kv2_pb2_grpc
from strongroom.transit.v1 import cipher_pb2, cipher_pb2_grpc, stream_pb2, stream_pb2_grpc
from tests.integration.platforms import TOPOLOGIES, Platform, beside, services, start, until
from tests.integration.test_grpc import AS_ROOT, code_of, stub
from tests.integration.test_transit_replicas import serving

PIECE = b"a piece of a file" * 10_000
KEY: dict[str, Any] = {"mount": "transit", "name": "files"}


@pytest.fixture(params=[*TOPOLOGIES, "workers"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Platform]:
    topology, *options = ["all", "--workers=2"] if request.param == "workers" else [request.param]
    with start(tmp_path / "platform", topology, *options) as platform:
        assert platform.http("POST", "sys/mounts/transit", json={"type": "transit"}).ok
        assert platform.http("POST", "transit/keys/files").ok
        yield platform


class Upload:
    """A stream that is being encrypted, and waits in the middle."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.go_on = threading.Event()
        streams = stub(stream_pb2_grpc.StreamCipherServiceStub, channel)
        self._answers = streams.Encrypt(self._pieces(), metadata=AS_ROOT)
        self._sealed = [next(self._answers).data]

    def _pieces(self) -> Iterator[stream_pb2.StreamCipherServiceEncryptRequest]:
        for number in range(6):
            if number == 3:
                self.go_on.wait(600)  # until it is told to: longer than any test takes
            yield stream_pb2.StreamCipherServiceEncryptRequest(data=PIECE, **KEY)

    def finish(self) -> None:
        """Sends the rest; raises if the stream broke."""
        self.go_on.set()
        self._sealed += [answer.data for answer in self._answers]

    def check(self) -> None:
        """Opens what it made."""
        streams = stub(stream_pb2_grpc.StreamCipherServiceStub, self._channel)
        requests = (
            stream_pb2.StreamCipherServiceDecryptRequest(data=data, **KEY) for data in self._sealed
        )
        opened = b"".join(answer.data for answer in streams.Decrypt(requests, metadata=AS_ROOT))
        assert opened == PIECE * 6


def test_a_replica_that_leaves_keeps_its_streams_and_gets_no_others(
    platform: Platform, tmp_path: Path
) -> None:
    workers = max(1, sum(name.startswith("server") for name in platform.pids))
    until(lambda: len(serving(platform)) == workers)
    own = serving(platform)
    with (
        services(tmp_path / "replica", "transit", *beside(platform)) as replica,
        platform.channel() as channel,
    ):
        until(lambda: len(serving(platform)) == len(own) + 1)
        # The one with the fewest gets the next, so that each has some.
        uploads = [Upload(channel) for _ in range(2 * len(own) + 2)]
        replica.send_signal(signal.SIGTERM)
        until(lambda: serving(platform) == own)
        later = [Upload(channel) for _ in range(4)]
        for upload in later:
            upload.finish()
        ciphers = stub(cipher_pb2_grpc.CipherServiceStub, channel)
        for _ in range(20):
            request = cipher_pb2.EncryptRequest(plaintext=b"x", **KEY)
            assert ciphers.Encrypt(request, metadata=AS_ROOT).ciphertext
        with pytest.raises(subprocess.TimeoutExpired):
            replica.wait(11)  # longer than calls get
        for upload in uploads:
            upload.finish()
        assert replica.wait(120) == 0
        for upload in uploads + later:
            upload.check()


def test_a_platform_that_is_told_to_end_finishes_its_streams(platform: Platform) -> None:
    with platform.channel() as channel:
        upload = Upload(channel)
        platform.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(platform))
        with pytest.raises(subprocess.TimeoutExpired):
            platform.process.wait(6)  # longer than calls get
        upload.finish()
        assert platform.process.wait(120) == 0


def test_a_second_signal_ends_streams_at_once(platform: Platform) -> None:
    with platform.channel() as channel:
        upload = Upload(channel)
        platform.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(platform))
        assert platform.process.poll() is None
        platform.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(upload._answers)
        upload.go_on.set()
        assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
        assert platform.process.wait(120) == 0


def _restart(platform: Platform, name: str) -> None:
    before = platform.child(name)
    os.kill(before, signal.SIGTERM)
    until(lambda: platform.child(name) != before)


def _wrote(platform: Platform, number: int) -> bool:
    return platform.http("POST", "secret/data/watched/a", json={"data": {"n": number}}).ok


def _refuses(platform: Platform) -> bool:
    """Returns whether a platform takes no more of clients."""
    try:
        with platform.channel() as channel:
            ciphers = stub(cipher_pb2_grpc.CipherServiceStub, channel)
            request = cipher_pb2.EncryptRequest(plaintext=b"x", **KEY)
            # Now and then gRPC's client begins a call again and again, and takes ever more memory for it, when the
            # connection was made in the moment in which the server stopped taking any.
            ciphers.Encrypt(request, metadata=AS_ROOT, timeout=5)
    except grpc.RpcError as error:
        return code_of(error) is grpc.StatusCode.UNAVAILABLE
    return False


# Elsewhere it is the gateway's own process.
@pytest.mark.parametrize("platform", ["split"], indirect=True)
def test_a_watch_goes_on_when_its_replica_has_left(platform: Platform) -> None:
    with platform.channel() as channel:
        kv = stub(kv2_pb2_grpc.KvV2ServiceStub, channel)
        request = kv2_pb2.WatchSecretsRequest(mount="secret/", path="watched")
        watch = kv.WatchSecrets(request, metadata=AS_ROOT, timeout=120)
        assert not next(watch).changes
        for number in range(2):
            _restart(platform, "kv")
            until(partial(_wrote, platform, number))
            assert [change.path for change in next(watch).changes] == ["watched/a"]

"""A platform whose embedded etcd is written over many times, and one whose etcd is full when it starts."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.transport.certificates import Identity
from tests.integration.platforms import start, until

QUOTA_MIB = 64
OPTION = f"--etcd-quota-mib={QUOTA_MIB}"
SIZE = 400_000


# The supervisor makes room, in every topology the same.
def test_writes_go_on_however_much_is_written(tmp_path: Path) -> None:
    with start(tmp_path, "all", OPTION, command="server") as platform:

        def write(number: int) -> bool:
            data = {"value": os.urandom(SIZE // 2).hex()}
            path = f"secret/data/room/{number % 5}"

            def written() -> bool:
                answer = platform.http("POST", path, platform.root, json={"data": data})
                return answer.status_code == 200

            # On a busy machine so small an etcd may be full for the moment that it takes to mend it.
            return bool(until(written))

        with ThreadPoolExecutor(4) as writers:
            assert all(writers.map(write, range(2 * QUOTA_MIB * (1 << 20) // SIZE)))
        assert "a part of etcd's history was forgotten" in (tmp_path / "output.log").read_text()


def test_a_platform_that_was_full_takes_changes_once_it_is_started_again(tmp_path: Path) -> None:
    with start(tmp_path, "all", OPTION, command="server") as platform:
        root = platform.root
    asyncio.run(fill(tmp_path / "data"))
    with start(tmp_path, "all", OPTION, command="server") as platform:
        answer = platform.http("POST", "secret/data/room", root, json={"data": {"a": "b"}})
        assert answer.status_code == 200


async def fill(data: Path) -> None:
    """Writes the etcd of a platform until it is full, with nobody to look after it."""
    server = EmbeddedEtcd(data / "etcd", Identity.of(data / "pki", "etcd"), quota_mib=QUOTA_MIB)
    await server.start()
    client = EtcdClient(server.nearby)
    request = etcd_pb2.TxnRequest()
    put = request.success.add().request_put
    put.key, put.value = b"filling", os.urandom(1 << 20)
    try:
        with pytest.raises(ServiceError, match="etcd is full"):
            for _ in range(2 * QUOTA_MIB):
                await client.transaction(request)
    finally:
        await client.close()
        await server.stop()

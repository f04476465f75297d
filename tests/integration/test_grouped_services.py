"""Processes of several services each: every one of them is called, and calls, by its own certificate."""

import asyncio
import contextlib
from pathlib import Path

from click.testing import CliRunner

from strongroom_cli.main import main
from strongroom_runtime.etcd.client import EtcdClient, prefix_end
from strongroom_runtime.etcd.server import EmbeddedEtcd
from tests.integration.platforms import server_of, services, start, until
from tests.ports import free_port


def records_of_kv(runner: asyncio.Runner, etcd: EmbeddedEtcd) -> int:
    async def count() -> int:
        client = EtcdClient(etcd.config)
        try:
            return len((await client.range(b"kv/", prefix_end(b"kv/"))).kvs)
        finally:
            await client.close()

    return runner.run(count())


def connections(supervisor: int, port: int) -> set[tuple[str, int]]:
    """Returns the addresses at both ends of what is connected to a port of a supervisor's process."""
    process = server_of(supervisor)
    return {
        (str(each.laddr.ip), int(each.raddr.port))
        for each in process.net_connections()
        if each.status == "ESTABLISHED" and each.laddr.port == port
    }


def test_services_work_in_groups(tmp_path: Path) -> None:
    # No host of theirs is in the certificates: what counts are the services.
    made = CliRunner().invoke(main, ["pki", "init", "--dir", str(tmp_path / "pki")])
    assert made.exit_code == 0, made.output
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        etcd = EmbeddedEtcd(tmp_path / "etcd")
        runner.run(etcd.start())
        stack.callback(lambda: runner.run(etcd.stop()))
        common = [
            f"--etcd-endpoints={etcd.config.endpoints[0]}", f"--pki-dir={tmp_path / 'pki'}",
            f"--audit-dir={tmp_path / 'audit'}", "--internal-listen=127.0.0.9:0",
        ]  # fmt: skip
        stack.enter_context(services(tmp_path / "seal", "seal,dbcreds", *common))
        port = free_port()
        direct = f"--direct-listen=0.0.0.0:{port}"
        named = stack.enter_context(services(tmp_path / "auth", "audit,auth", *common, direct))
        gateway = start(
            tmp_path / "gateway", "all", "--target=gateway,kv,transit", *common, command="server"
        )
        platform = stack.enter_context(gateway)
        root = platform.root
        assert platform.http("POST", "sys/mounts/transit", root, json={"type": "transit"}).ok
        assert platform.http("POST", "transit/keys/orders", root).ok
        made_token = platform.http("POST", "auth/token/create", root, json={"ttl": "1h"}).json()
        token = made_token["auth"]["client_token"]
        # dbcreds asks auth.
        listed = platform.http("LIST", "sys/leases/lookup/auth/token/create/", root).json()
        body = {"lease_id": f"auth/token/create/{listed['data']['keys'][0]}"}
        found = platform.http("POST", "sys/leases/lookup", root, json=body)
        assert found.json()["data"]["path"] == "auth/token/create"
        # auth tells kv.
        before = records_of_kv(runner, etcd)
        assert platform.http("POST", "cubbyhole/mine", token, json={"a": "b"}).ok
        assert records_of_kv(runner, etcd) > before
        assert platform.http("POST", "auth/token/revoke", root, json={"token": token}).ok
        until(lambda: records_of_kv(runner, etcd) == before)
        # Frames go to the port that was named, where the process is reached.
        joined = until(lambda: connections(named.pid, port))
        assert {local for local, _ in joined} == {"127.0.0.9"}
        process = server_of(named.pid)
        listening = {c.laddr.port for c in process.net_connections() if c.status == "LISTEN"}
        assert port in listening
        assert len(listening) == 2

"""Two seals and two gateways, each a process of its own, under Shamir's scheme."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from strongroom_cli.main import main
from strongroom_runtime.etcd.server import EmbeddedEtcd
from tests.integration.client import AskError
from tests.integration.platforms import Platform, contents, services, start, until
from tests.ports import free_port


@pytest.fixture(scope="module")
def etcd(shared_folder: Path) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(shared_folder / "etcd")
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture(scope="module")
def common(etcd: EmbeddedEtcd) -> list[str]:
    folder = etcd.folder.parent
    made = CliRunner().invoke(
        main, ["pki", "init", "--dir", str(folder / "pki"), "--host", "127.0.0.1"]
    )
    assert made.exit_code == 0, made.output
    return [
        f"--etcd-endpoints={etcd.config.endpoints[0]}", f"--pki-dir={folder / 'pki'}",
        f"--audit-dir={folder / 'audit'}", "--seal=shamir",
    ]  # fmt: skip


def status(gateway: Platform) -> dict[str, object]:
    found: dict[str, object] = gateway.http("GET", "sys/seal-status", None).json()
    return found


def test_shares_add_up_whichever_gateway_they_are_given_to(
    etcd: EmbeddedEtcd, common: list[str]
) -> None:
    folder = etcd.folder.parent
    with contextlib.ExitStack() as stack:
        health = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        seals = [
            stack.enter_context(
                services(folder / f"seal{n}", "seal", *common, f"--health-listen={address}")
            )
            for n, address in enumerate(health)
        ]
        others = "audit,kv,transit,dbcreds,auth"
        stack.enter_context(services(folder / "services", others, *common))
        one, other = [
            stack.enter_context(
                start(folder / f"gateway{n}", "all", "--target=gateway", *common, command="server")
            )
            for n in (0, 1)
        ]
        body = {"secret_shares": 5, "secret_threshold": 3}
        made = one.http("POST", "sys/init", None, json=body).json()
        for share, gateway in zip(made["keys"], (one, other, one), strict=False):
            answer = gateway.http("POST", "sys/unseal", None, json={"key": share})
            assert answer.status_code == 200, answer.text
        assert answer.json()["sealed"] is False
        token = made["root_token"]

        def all_are_open() -> bool:
            """Gives the shares again where one was not reached yet."""
            asked = [requests.get(f"http://{address}/ready", timeout=60) for address in health]
            if all(answer.ok for answer in asked):
                return True
            for share in made["keys"][:3]:
                one.http("POST", "sys/unseal", None, json={"key": share})
            return False

        until(all_are_open)

        def works(gateway: Platform) -> bool:
            return gateway.http("GET", "sys/mounts", token).status_code == 200

        for gateway in (one, other):
            until(partial(works, gateway))
            assert [status(gateway)["sealed"] for _ in range(10)] == [False] * 10
        # Both seals follow a new root key, whichever made it.
        for gateway in (one, other, one):
            assert gateway.http("POST", "sys/rotate/root", token).status_code == 204
        # Both seals are open: either may go.
        seals[0].send_signal(signal.SIGTERM)
        seals[0].wait(120)
        until(lambda: one.http("GET", "sys/key-status", token).status_code == 200)
        # One that comes back is closed, and the other speaks for both.
        stack.enter_context(services(folder / "seal2", "seal", *common))
        for _ in range(20):
            with contextlib.suppress(AskError):
                assert one.http("GET", "sys/key-status", token).status_code == 200
                assert status(one)["sealed"] is False
        assert one.http("PUT", "sys/seal", token).status_code == 204
        until(lambda: status(other)["sealed"])
        # A reset begins anew everywhere.
        other.http("POST", "sys/unseal", None, json={"key": made["keys"][4]})
        assert status(one)["progress"] == 1
        one.http("POST", "sys/unseal", None, json={"reset": True})
        assert status(other)["progress"] == 0
        for share, gateway in zip(made["keys"][2:], (other, other, one), strict=False):
            gateway.http("POST", "sys/unseal", None, json={"key": share})
        until(lambda: works(one) and works(other))
    for content in contents(etcd.folder).values():
        for share in made["keys"]:
            assert bytes.fromhex(share) not in content
            assert share.encode() not in content

"""An outside etcd with access control: each service a process with a user of its own, limited to its keys."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from strongroom_cli.main import main
from strongroom_cli.outside_etcd import rights
from strongroom_cli.settings import SERVICES
from strongroom_runtime.errors import ServiceError
from tests.integration.platforms import BIN, Platform, start, until
from tests.unit.runtime.etcd.guarded import GuardedEtcd


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@contextlib.contextmanager
def guarded(folder: Path, runner: asyncio.Runner) -> Iterator[GuardedEtcd]:
    """Starts an etcd that has the users which the command makes."""
    etcd = GuardedEtcd(folder / "etcd")
    runner.run(etcd.server.start())
    try:
        etcd.turn_on()
        etcd.shell(invoke("etcd", "users", "--password-dir", str(folder / "passwords")))
        yield etcd
    finally:
        runner.run(etcd.server.stop())


@contextlib.contextmanager
def platform_of(folder: Path, etcd: GuardedEtcd) -> Iterator[Platform]:
    """Starts every service by itself, as its own user of etcd."""
    invoke("pki", "init", "--dir", str(folder / "pki"), "--host", "127.0.0.1")
    common = [
        f"--etcd-endpoints={etcd.server.config.endpoints[0]}",
        f"--pki-dir={folder / 'pki'}", f"--audit-dir={folder / 'audit'}",
    ]  # fmt: skip

    def options(service: str) -> list[str]:
        password = folder / "passwords" / service
        user = [f"--etcd-user=strongroom-{service}", f"--etcd-password-file={password}"]
        return [f"--target={service}", *user, *common]

    with contextlib.ExitStack() as stack:
        for service in SERVICES:
            if service == "gateway":
                continue
            arguments = [
                str(BIN / "strongroom"), "server", f"--data-dir={folder / service}", *options(service)
            ]  # fmt: skip
            log = stack.enter_context((folder / f"{service}.log").open("wb"))
            process = subprocess.Popen(arguments, stdout=log, stderr=log)
            stack.callback(process.wait, 120)
            stack.callback(process.send_signal, signal.SIGTERM)
        gateway = start(folder / "gateway", "all", *options("gateway"), command="server")
        yield stack.enter_context(gateway)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def etcd(shared_folder: Path, runner: asyncio.Runner) -> Iterator[GuardedEtcd]:
    with guarded(shared_folder, runner) as etcd:
        yield etcd


def test_each_service_works_with_its_own_keys_alone(
    etcd: GuardedEtcd, runner: asyncio.Runner
) -> None:
    folder = etcd.server.folder.parent
    with platform_of(folder, etcd) as platform:
        root = platform.root
        for method, path, body in (
            ("POST", "sys/mounts/transit", {"type": "transit"}),
            ("POST", "sys/mounts/database", {"type": "database"}),
            ("POST", "sys/auth/userpass", {"type": "userpass"}),
            ("POST", "auth/userpass/users/ann", {"password": "ann's"}),
            ("POST", "secret/data/app", {"data": {"a": 1}}),
            ("POST", "transit/encrypt/orders", {"plaintext": "aGk="}),
            ("POST", "sys/policies/password/long", {"policy": 'length = 20\nrule "charset" { charset = "ab" }'}),
        ):  # fmt: skip
            answer = platform.http(method, path, root, json=body)
            assert answer.status_code in (200, 204), (path, answer.text)
        token = platform.http("POST", "auth/userpass/login/ann", None, json={"password": "ann's"})
        assert token.status_code == 200, token.text
        # A member that starts again knows no token any more.
        runner.run(etcd.server.kill())
        runner.run(etcd.server.start())
        until(lambda: platform.http("POST", "secret/data/app", root, json={"data": {"a": 2}}).ok)
        read = platform.http("GET", "secret/data/app", root)
        assert read.json()["data"]["data"] == {"a": 2}
    for log in folder.glob("*.log"):
        assert "does not allow" not in log.read_text(), log
    passwords = [(folder / "passwords" / service).read_text() for service in SERVICES]
    logs = "".join(log.read_text() for log in folder.rglob("*.log"))
    assert not any(password in logs for password in passwords)


@pytest.mark.parametrize("service", SERVICES)
def test_etcd_gives_a_service_nothing_else(
    service: str, etcd: GuardedEtcd, runner: asyncio.Runner
) -> None:
    password = (etcd.server.folder.parent / "passwords" / service).read_text()
    prefixes = {f"{name}/" for name in (*SERVICES, "cluster", "other")}
    allowed = {prefix for _, prefix in rights(service)} & prefixes

    async def readable() -> set[str]:
        client = etcd.client(f"strongroom-{service}", password)
        found = set()
        for prefix in prefixes:
            with contextlib.suppress(ServiceError):
                await client.range(prefix.encode(), prefix.encode()[:-1] + b"0")
                found.add(prefix)
        await client.close()
        return found

    assert runner.run(readable()) == allowed
